#!/usr/bin/env bash
# Everything that needs a GPU, in one go, without a network: builds the package, runs tests/gpu with
# skips as failures, compute-sanitizer where it works, and the benchmarks. Writes JSON and logs to
# the directory given (default build/gpu) and prints a short table last.
#
#   bash benchmarks/gpu/run.sh [DIRECTORY]
#
# Needs nvcc and, installed already: torch with CUDA, CuPy, pybind11, scikit-build-core, ninja, pytest, transformers.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu}
mkdir -p "$out"
failed=0
step() {
  local name=$1
  shift
  echo "== $name"
  local start=$SECONDS code=0
  "$@" >"$out/$name.log" 2>&1 || code=$?
  [ "$code" -eq 0 ] || { failed=1; tail -n 40 "$out/$name.log"; }
  summary+=("$(printf '%-12s exit %-3s %4ss' "$name" "$code" "$((SECONDS - start))")")
}
summary=()
export REPRO_AUDIT_REQUIRE=cuda,cupy
# For this machine's device alone: minutes less than for all of them.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
export CUDAARCHS=${CUDAARCHS:-$capability-real}
step build python -m pip install --no-build-isolation --no-deps --no-index . \
  -C cmake.define.REPRO_AUDIT_CUDA=ON
step doctor python -m repro_audit doctor
step tests python -m pytest -q tests/gpu -p no:cacheprovider --durations=10
for tool in memcheck racecheck; do
  step "$tool" compute-sanitizer --tool "$tool" --error-exitcode 9 \
    python -m pytest -q tests/gpu/test_kernels.py -p no:cacheprovider -k "multiset or many or ulp and not large"
done
step bench python -m benchmarks.gpu --json "$out/gpu.json"
step training python -m benchmarks.gpu.training --json "$out/training.json"
echo
cat "$out/bench.log" "$out/training.log"
printf '%s\n' "${summary[@]}"
exit "$failed"
