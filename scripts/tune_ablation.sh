#!/usr/bin/env bash
# Chooses the strengths of experiment=ablation: each method alone over a grid, judged by the validation split, with seeds
# and hence data subsets that the ablation does not use. `genbench-table runs/tuning-<method>` shows each result.
set -euo pipefail
tune() {
  local method=$1
  shift
  genbench experiment=ablation name="tuning-$method" regularization="$method" 'seed=range(100,103)' \
    'callbacks.gap.every_n_epochs=null' 'callbacks.weight_norms.every_n_epochs=null' '~callbacks.flatness' table=null "$@"
}
tune none optimizer.lr=0.001,0.003,0.01,0.03
tune l1 regularization.l1.strength=1e-5,1e-4,3e-4,1e-3
tune l2 regularization.l2.strength=1e-4,1e-3,3e-3,1e-2
tune weight_decay regularization.weight_decay.strength=0.01,0.1,0.3,1
tune dropout regularization.dropout.rate=0.1,0.2,0.3,0.5
tune label_smoothing regularization.label_smoothing.smoothing=0.05,0.1,0.2,0.4
tune augmentation regularization.augmentation.shift=0.05,0.1,0.2 regularization.augmentation.noise=0.05,0.1,0.2
tune mixup regularization.mixup.alpha=0.1,0.2,0.4,1
tune early_stopping regularization.early_stopping.patience=5,10,20,40
tune sam regularization.sam.rho=0.05,0.1,0.2,0.5,1
tune swa regularization.swa.start=0.25,0.5,0.75
tune gradient_clipping regularization.gradient_clipping.max_norm=0.1,0.3,1,3
# learning rates of experiment=optimizers, on clean labels
rate() {
  local optimizer=$1
  shift
  genbench experiment=ablation name="tuning-lr-$optimizer" optimizer="$optimizer" regularization=none data.label_noise=0 \
    'seed=range(100,103)' 'callbacks.gap.every_n_epochs=null' 'callbacks.weight_norms.every_n_epochs=null' \
    '~callbacks.flatness' table=null "$@"
}
rate sgd optimizer.lr=0.03,0.1,0.3
rate momentum optimizer.lr=0.01,0.03,0.1
rate adam optimizer.lr=0.001,0.003,0.01
rate adamw optimizer.lr=0.001,0.003,0.01
rate rmsprop optimizer.lr=0.0003,0.001,0.003
