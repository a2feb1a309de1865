{{/* A table as TOML; takes (list name table). `toToml` would print all numbers as floats. */}}
{{- define "proctor.toml" -}}
{{- $name := first . -}}
{{- range $key, $value := last . }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value) (include "proctor.isTables" $value)) }}
{{ include "proctor.tomlKey" $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := last . }}
{{- $path := printf "%s%s" $name (include "proctor.tomlKey" $key) }}
{{- if kindIs "map" $value }}

[{{ $path }}]
{{- include "proctor.toml" (list (printf "%s." $path) $value) }}
{{- else if include "proctor.isTables" $value }}
{{- range $value }}

[[{{ $path }}]]
{{- include "proctor.toml" (list (printf "%s." $path) .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "proctor.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{- define "proctor.isTables" -}}
{{- if and (kindIs "slice" .) . }}{{ if kindIs "map" (first .) }}true{{ end }}{{ end }}
{{- end }}

{{/* The gateway's settings: those of the values, and what follows from the rest of the chart. */}}
{{- define "proctor.settings" -}}
{{- $settings := .Values.gateway.settings -}}
{{- range list "host" "port" "model" "served_model_name" }}
{{- if hasKey $settings . }}
{{- fail (printf "gateway.settings.%s is set by the chart: leave it out (see model.name and model.servedName)" .) }}
{{- end }}
{{- end }}
{{- if hasKey $settings "engine" }}
{{- fail "gateway.settings.engine is set by the chart: use engine.urls and engine.apiKey" }}
{{- end }}
{{- if and (not .Values.engine.enabled) (not .Values.engine.urls) }}
{{- fail "engine.urls is empty: with engine.enabled=false it must have the URLs of the replicas" }}
{{- end }}
{{- $required := dig "auth" "required" true $settings }}
{{- if and $required (not (include "proctor.hasLedger" .)) (not $settings.keys) }}
{{- fail "No client could have an API key: set ledger.existingSecret to a Secret with the URL of a PostgreSQL database, or gateway.settings.keys, or gateway.settings.auth.required to false" }}
{{- end }}
{{- $service := printf "http://%s-engine.%s.svc:8000" (include "proctor.fullname" .) .Release.Namespace }}
{{- $derived := dict
  "host" "0.0.0.0"
  "port" 8000
  "model" .Values.model.name
  "served_model_name" (include "proctor.servedName" .)
  "engine" (dict "kind" "vllm" "urls" (default (list $service) .Values.engine.urls))
  "auth" (dict "admin_host" "0.0.0.0" "admin_port" 9100)
  "limits" (dict "shutdown_grace_seconds" (include "proctor.shutdownGraceSeconds" . | int64))
}}
{{- include "proctor.toml" (list "" (mergeOverwrite $derived (deepCopy $settings))) | trim }}
{{- end }}
