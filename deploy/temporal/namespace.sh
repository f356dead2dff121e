#!/bin/sh
# The namespace, its 30 days of history, and the search attributes that lists filter by.
set -eu
namespace=${TEMPORAL_NAMESPACE:-default}
if temporal operator namespace describe -n "$namespace" >/dev/null 2>&1; then
    temporal operator namespace update -n "$namespace" --retention 720h
else
    temporal operator namespace create -n "$namespace" --retention 720h
fi
for name in FailbackMachine FailbackPhase FailbackPlan FailbackPlatform; do
    # Fails where the attribute exists already; the control worker would register it, too.
    temporal operator search-attribute create -n "$namespace" --name "$name" --type Keyword || true
done
