#!/usr/bin/env bash
# curl: the budget that a prompt would get, a complete response, and a stream.
set -euo pipefail

url=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
post() {
  curl --silent --show-error --fail-with-body --no-buffer "$url/$1" \
    -H 'Content-Type: application/json' -H "Authorization: Bearer ${OPENAI_API_KEY:-unused}" -d "$2"
  echo
}

question='{"role": "user", "content": "Start with 7, add 5, times 3. What are the last two digits?"}'
post route "{\"messages\": [$question]}"
post chat/completions "{\"messages\": [$question], \"max_thinking_tokens\": 64}"
post chat/completions "{\"messages\": [$question], \"budget_tier\": \"low\", \"stream\": true}"
