"""Configs by name, installed as jaxmat.configs; each module has a function get_config."""
