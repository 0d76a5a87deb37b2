#!/usr/bin/env bash
# Spark's discovery script (spark.*.resource.gpu.discoveryScript): the numbers of this machine's NVIDIA GPUs as JSON.
found=$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | sed 's/.*/"&"/' | paste -sd, -)
echo "{\"name\": \"gpu\", \"addresses\": [$found]}"
