#!/usr/bin/env bash
# Chooses the learning rates of experiment=ablation and experiment=optimizers over grids, judged by the validation split, with
# seeds and hence data subsets that the experiments do not use; `genbench-table runs/tuning-<name>` shows each result again.
# (The ablation chooses the strength of each strategy itself.)
set -euo pipefail
# of the ablation: the best mean over clean and noisy labels
genbench experiment=tuning name=tuning-none optimizer.lr=0.001,0.003,0.01,0.03
# learning rates of the optimizers at batch 100, clean labels
optimizer() {
  genbench experiment=tuning name="tuning-lr-$1" data.label_noise=0 optimizer="$@"
}
optimizer sgd optimizer.lr=0.03,0.1,0.3
optimizer momentum optimizer.lr=0.01,0.03,0.1
optimizer adam optimizer.lr=0.001,0.003,0.01
optimizer adamw optimizer.lr=0.001,0.003,0.01
optimizer rmsprop optimizer.lr=0.0003,0.001,0.003
