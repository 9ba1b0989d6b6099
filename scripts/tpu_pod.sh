#!/bin/bash
# One training on a TPU pod slice, begun anew where the slice is pre-empted: bash scripts/tpu_pod.sh
# Every host runs the program, and JAX finds the others by itself. Data and working directory are
# on a file system that all hosts mount, here at /mnt/shared.
tpu=jaxmat-pod
zone=us-central2-b
repository=https://github.com/OWNER/jaxmat-transfer

create() {
    gcloud compute tpus tpu-vm create "$tpu" --zone="$zone" --spot \
        --accelerator-type=v4-16 --version=tpu-ubuntu2204-base
}

on_all_hosts() {
    gcloud compute tpus tpu-vm ssh "$tpu" --zone="$zone" --worker=all --command="$1"
}

train() {
    on_all_hosts "sudo mkdir -p /mnt/shared && sudo mount SERVER:/share /mnt/shared" || return
    on_all_hosts "git clone --quiet $repository jaxmat && pip install --quiet ./jaxmat 'jax[tpu]'" \
        || return
    on_all_hosts "cd jaxmat && python run_experiment.py --distributed \
        --config=configs/scratch.py \
        --config.data.path=/mnt/shared/dielectric.json.gz \
        --config.data.target=n \
        --config.data.unit=1 \
        --config.training.batch_size=128 \
        --workdir=/mnt/shared/runs/dielectric"
}

while true; do
    create || exit
    train
    code=$?
    state=$(gcloud compute tpus tpu-vm describe "$tpu" --zone="$zone" --format="value(state)")
    gcloud compute tpus tpu-vm delete "$tpu" --zone="$zone" --quiet
    # A slice that is still there was not pre-empted: the run is done, or there is a mistake.
    if [ "$state" = READY ]; then
        exit "$code"
    fi
done
