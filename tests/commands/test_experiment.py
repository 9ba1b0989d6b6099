"""How a config is named and changed on a command line, and what is said of mistakes."""

from __future__ import annotations

import shlex

import pytest
from ml_collections import ConfigDict

from jaxmat import experiments
from jaxmat.commands import choose, evaluate, experiment, finetune, study, train
from jaxmat.commands.command import Command, execute
from jaxmat.commands.configs import as_flags, config_names, load_config
from jaxmat.errors import UserError

TABLE = ["--data=bundled:dielectric", "--target=poly_total", "--unit=1"]


@pytest.fixture
def ran(monkeypatch) -> list[tuple[ConfigDict, str]]:
    """The configs and working directories that were run, in place of running them."""
    calls = []
    monkeypatch.setattr(experiments, "run", lambda *given: calls.append(given[:2]))
    return calls


def configure(ran, command: Command, *arguments: str) -> ConfigDict:
    """Returns the config that a command runs."""
    assert execute(command, ["jaxmat", *arguments, "--workdir=DIR"]) is None
    config, workdir = ran.pop()
    assert workdir == "DIR"
    return config


def test_configs_are_found_by_name_and_by_path():
    assert {"quickstart", "finetune", "pairwise"} <= set(config_names())
    for name in config_names():
        config = load_config(name)
        assert config.is_locked
        assert config == load_config(f"configs/{name}.py")
        assert load_config(f"{name}:smoke") == load_config(f"configs/{name}.py:smoke") != config


def test_short_flags_set_fields(ran):
    config = configure(ran, train.COMMAND, *TABLE, "--config.training.epochs=3")
    expected = load_config("scratch")
    expected.data.update(path="bundled:dielectric", target="poly_total", unit="1")
    expected.training.epochs = 3
    assert config == expected
    for command in (finetune.COMMAND, evaluate.COMMAND):
        flag = "--model=runs/a" if command is evaluate.COMMAND else "--start_from=runs/a"
        config = configure(ran, command, *TABLE, flag)
        assert (config.start_from, config.data.path) == ("runs/a", "bundled:dielectric")
    config = configure(ran, choose.COMMAND, *TABLE, "--start_from=/a,/b")
    assert experiments.defaults.split_names(config.candidates) == ["/a", "/b"]
    assert configure(ran, choose.COMMAND, *TABLE, "--minutes=2.5").minutes == 2.5
    assert configure(ran, study.COMMAND, "--config=pairwise", "--data=DIR").data.tables == "DIR"


def test_a_short_flag_that_is_no_number_is_refused(ran):
    with pytest.raises(
        UserError, match="--minutes is 'soon'; it has to be a number from 0 to 10,000,000"
    ):
        configure(ran, choose.COMMAND, *TABLE, "--minutes=soon")


def test_several_columns_are_trained_on_by_name(ran):
    given = ["--data=t.csv", "--target=gap (PBE),k", "--unit=eV,GPa", "--config.data.log"]
    data = configure(ran, train.COMMAND, *given).data
    assert data.properties.to_dict() == {
        "gap_PBE": {"target": "gap (PBE)", "unit": "eV", "log": True},
        "k": {"target": "k", "unit": "GPa", "log": True},
    }
    assert not {"target", "unit", "property", "log"} & {*data}
    # A comma may be part of the name of one column.
    data = configure(ran, train.COMMAND, "--data=t.csv", "--target=gap, PBE", "--unit=eV").data
    assert data.target == "gap, PBE"


@pytest.mark.parametrize("order", [1, -1])
def test_fields_may_be_given_in_any_order_and_way(ran, order):
    given = [["--config", "quickstart:smoke"], ["--config.seeds", "2"], ["--workdir", "X"]]
    arguments = [argument for pair in given[::order] for argument in pair]
    assert configure(ran, experiment.COMMAND, *arguments).seeds == 2


@pytest.mark.parametrize("name", config_names())
def test_the_printed_config_is_the_config(ran, capsys, name):
    given = [f"--config={name}", "--config.experiment=x"]
    assert execute(experiment.COMMAND, ["run", *given, "--print_config"]) is None
    lines = capsys.readouterr().out.splitlines()
    config = configure(ran, experiment.COMMAND, *given)
    assert as_flags(config).splitlines() == lines
    fields = [word for line in lines for word in shlex.split(line, comments=True)]
    assert configure(ran, experiment.COMMAND, f"--config={name}", *fields) == config


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (train, ["--config.training.epocs=3"], r"no such field; did you mean training\.epochs\?"),
        (train, ["--config.epochs=3"], r"did you mean training\.epochs\?"),
        (train, ["--noconfig.data.lgo"], r"did you mean data\.log\?"),
        (finetune, ["--config.init_from=x"], r"did you mean start_from\?"),
        (
            train,
            ["--config.a.b=3", "--config.q=4"],
            r"(?s)config\.a\.b: .*config\.q: there",
        ),
        (train, ["--config.training.epochs=many"], "many"),
        (train, ["--config=quikstart"], r"did you mean quickstart\?"),
        (train, ["--config=configs/quikstart.py"], r"no such file; did you mean quickstart\?"),
        (train, ["--config=setup.cfg"], "there is no config 'setup.cfg'"),
        (train, ["--config=scratch:smok"], "no variant 'smok'"),
        (train, ["--config=choose"], "an experiment 'choose', but this verb is for scratch"),
        (train, ["--config=quickstart", "--data=x"], "--data sets config.data.path, which"),
        (train, ["--data=x", "--config.data.path=y"], "give one of them"),
        (train, ["--target=a,b", "--unit=a,b,c"], "2 columns and --unit 3 units; give one for"),
        (train, ["--target=a-b,a b", "--unit=1,1"], "differ in more than their marks"),
        (finetune, ["--target=a,b", "--unit=1,1"], "finetune is about one property: start it once"),
        (train, ["--workdri=x"], "Did you mean: workdir"),
        (train, ["--epochs=3"], r"--epochs: there is no .* mean --config\.training\.epochs\?"),
        (train, ["--training.epochs", "3"], r"did you mean --config\.training\.epochs\?"),
        (choose, ["--folds=3"], r"did you mean --config\.folds\?"),
        (train, ["table.csv"], "Unexpected arguments: table.csv"),
        (train, ["--workdir="], "Give --workdir=DIR"),
        (study, [], r"Give --config=NAME \(jarvis_2d, .*strategies\)"),
        (experiment, [], r"Give --config=NAME \(choose, .*scratch"),
    ],
)
def test_a_mistake_is_named_with_its_cure(ran, command, arguments, message):
    with pytest.raises(UserError, match=message):
        execute(command.COMMAND, ["jaxmat", "--workdir=DIR", *arguments])
    assert not ran


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "cannot be loaded: .*line 1"),
        (b"x = '\xff'", "cannot be loaded: it is not text in UTF-8"),
        ("def get_config(a, b): return a", "get_config cannot be called with no arguments"),
        ("import no_such_library", "cannot be loaded: No module named 'no_such_library'"),
        ("x = 1", "no function get_config"),
        ("def get_config():\n    return {}", "returns no ml_collections.ConfigDict"),
    ],
)
def test_a_file_without_a_config_is_refused(tmp_path, text, message):
    (tmp_path / "mine.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        load_config(str(tmp_path / "mine.py"))


def test_a_file_of_ones_own_is_a_config(tmp_path):
    source = "from jaxmat.experiments import defaults\nget_config = defaults.pretrain\n"
    (tmp_path / "mine.py").write_text(source)
    assert load_config(str(tmp_path / "mine.py")) == load_config("pretrain")
