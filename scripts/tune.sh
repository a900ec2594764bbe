#!/usr/bin/env bash
# Chooses the settings of experiment=ablation and experiment=optimizers: each method or optimizer alone over a grid, judged
# by the validation split, with seeds and hence data subsets that the experiments do not use. About 15 minutes on 2 cores;
# `genbench-table runs/tuning-<name>` shows each result again.
set -euo pipefail
method() {
  genbench experiment=tuning name="tuning-$1" regularization="$@"
}
# the learning rate of the ablation, then strengths: the best mean over clean and noisy labels
method none optimizer.lr=0.001,0.003,0.01,0.03
method l1 regularization.l1.strength=1e-5,1e-4,3e-4,1e-3
method l2 regularization.l2.strength=1e-4,1e-3,3e-3,1e-2,3e-2
method weight_decay regularization.weight_decay.strength=0.01,0.1,0.3,1,3,10
method dropout regularization.dropout.rate=0.1,0.2,0.3,0.5,0.7
method label_smoothing regularization.label_smoothing.smoothing=0.05,0.1,0.2,0.4
method augmentation regularization.augmentation.shift=0.05,0.1,0.2,0.3 regularization.augmentation.noise=0.05,0.1,0.2,0.4,0.8
method mixup regularization.mixup.alpha=0.1,0.2,0.4,1
method early_stopping regularization.early_stopping.patience=5,10,20,40
method sam regularization.sam.rho=0.01,0.02,0.05,0.1,0.2,0.5,1
method swa regularization.swa.start=0.25,0.5,0.75,0.9
method gradient_clipping regularization.gradient_clipping.max_norm=0.1,0.3,1,3
# learning rates of the optimizers at batch 100, clean labels
optimizer() {
  genbench experiment=tuning name="tuning-lr-$1" data.label_noise=0 optimizer="$@"
}
optimizer sgd optimizer.lr=0.03,0.1,0.3
optimizer momentum optimizer.lr=0.01,0.03,0.1
optimizer adam optimizer.lr=0.001,0.003,0.01
optimizer adamw optimizer.lr=0.001,0.003,0.01
optimizer rmsprop optimizer.lr=0.0003,0.001,0.003
