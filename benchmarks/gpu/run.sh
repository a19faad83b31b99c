#!/usr/bin/env bash
# Everything that needs a GPU, in one go, without a network: builds the package, runs tests/gpu with
# skips as failures, the benchmarks, and compute-sanitizer where it works. Each step has a limit, so
# that one that hangs costs its own result alone; all of them together take ten minutes at most.
# Writes JSON and logs to the directory given (default build/gpu) and prints a short table last.
#
#   bash benchmarks/gpu/run.sh [DIRECTORY [STEP...]]
#
# With steps only these: build, doctor, tests, audits, bench, training, memcheck, racecheck.
#
# Needs nvcc and, installed already: torch with CUDA, CuPy, pybind11, scikit-build-core, ninja, pytest, transformers.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu}
steps=" ${*:2} "
mkdir -p "$out"
failed=0
step() {
  local name=$1 limit=$2
  shift 2
  [[ $steps == "  " || $steps == *" $name "* ]] || return 0
  echo "== $name"
  local start=$SECONDS code=0
  timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || code=$?
  [ "$code" -eq 0 ] || { failed=1; tail -n 40 "$out/$name.log"; }
  summary+=("$(printf '%-12s exit %-3s %4ss' "$name" "$code" "$((SECONDS - start))")")
}
summary=()
export REPRO_AUDIT_REQUIRE=cuda,cupy
# For this machine's device alone: minutes less than for all of them.
capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d .)
export CUDAARCHS=${CUDAARCHS:-$capability-real}
step build 150 python -m pip install --no-build-isolation --no-deps --no-index . \
  -C cmake.define.REPRO_AUDIT_CUDA=ON
step doctor 30 python -m repro_audit doctor
step tests 100 python -m pytest -q tests/gpu -p no:cacheprovider --durations=10 --ignore tests/gpu/test_audits.py
# Whole programs, most of whose time is that of processes to start: several at once.
step audits 110 bash -o pipefail -c 'python -m pytest -q --collect-only tests/gpu/test_audits.py | grep :: |
  sed s,^,tests/gpu/, | xargs -d "\n" -P 8 -n 1 python -m pytest -q -p no:cacheprovider'
step bench 55 python -m benchmarks.gpu --json "$out/bench.json"
step training 55 python -m benchmarks.gpu.training --json "$out/training.json"
for tool in memcheck racecheck; do
  command -v compute-sanitizer >/dev/null || { summary+=("$tool: compute-sanitizer is not here"); continue; }
  step "$tool" 40 compute-sanitizer --tool "$tool" --error-exitcode 9 \
    python -m pytest -q tests/gpu/test_kernels.py -p no:cacheprovider -k "multiset or many or ulp and not large"
done
echo
for name in bench training; do
  [ ! -e "$out/$name.json" ] || cat "$out/$name.log"
done
printf '%s\n' "${summary[@]}"
exit "$failed"
