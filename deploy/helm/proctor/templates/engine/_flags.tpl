{{/* The arguments of `proctor replica`, as a YAML list. */}}
{{- define "proctor.replicaArguments" -}}
{{- $engine := .Values.engine -}}
{{- $reserved := list "host" "port" "api-key" "served-model-name" "shutdown-timeout" "tensor-parallel-size" "pipeline-parallel-size" "disable-log-stats" }}
- replica
- {{ .Values.model.name | quote }}
- --host=0.0.0.0
- --port=8000
- {{ printf "--served-model-name=%s" (include "proctor.servedName" .) | quote }}
- --shutdown-timeout={{ include "proctor.maxRequestSeconds" . }}
- --tensor-parallel-size={{ $engine.tensorParallelSize }}
- --pipeline-parallel-size={{ $engine.pipelineParallelSize }}
{{- range $flag, $value := $engine.args }}
{{- if has $flag $reserved }}
{{- fail (printf "engine.args.%s is set by the chart: leave it out" $flag) }}
{{- end }}
{{- if kindIs "bool" $value }}
- --{{ ternary "" "no-" $value }}{{ $flag }}
{{- else if kindIs "string" $value }}
- {{ printf "--%s=%s" $flag $value | quote }}
{{- else }}
- {{ printf "--%s=%s" $flag (toRawJson $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* GPUs of a replica. */}}
{{- define "proctor.gpuCount" -}}
{{- $engine := .Values.engine -}}
{{- if kindIs "invalid" $engine.gpu.count -}}
{{- mul $engine.tensorParallelSize $engine.pipelineParallelSize }}
{{- else -}}
{{- int64 $engine.gpu.count }}
{{- end }}
{{- end }}

{{/* The resources of the values, with the GPUs as limit and request. */}}
{{- define "proctor.engineResources" -}}
{{- $resources := deepCopy .Values.engine.resources -}}
{{- $count := include "proctor.gpuCount" . | int64 -}}
{{- if $count -}}
{{- $gpus := dict .Values.engine.gpu.resource $count -}}
{{- $_ := set $resources "limits" (merge (dict) ($resources.limits | default dict) $gpus) -}}
{{- $_ := set $resources "requests" (merge (dict) ($resources.requests | default dict) $gpus) -}}
{{- end -}}
{{- toYaml $resources }}
{{- end }}
