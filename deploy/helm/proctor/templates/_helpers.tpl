{{- define "proctor.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* The prefix of all names; leaves room for suffixes within 63 characters. */}}
{{- define "proctor.fullname" -}}
{{- $name := include "proctor.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Takes (list context component). */}}
{{- define "proctor.selector" -}}
app.kubernetes.io/name: {{ include "proctor.name" (first .) }}
app.kubernetes.io/instance: {{ (first .).Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end }}

{{/* Takes (list context component). */}}
{{- define "proctor.labels" -}}
{{- $context := first . -}}
{{ include "proctor.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "proctor.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "proctor.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "proctor.servedName" -}}
{{- default .Values.model.name .Values.model.servedName }}
{{- end }}

{{/* Numbers of values are floats: %v would print large ones with an exponent. */}}
{{- define "proctor.maxRequestSeconds" -}}
{{- dig "limits" "max_request_seconds" 3600 .Values.gateway.settings | ceil | int64 }}
{{- end }}

{{- define "proctor.shutdownGraceSeconds" -}}
{{- $longest := include "proctor.maxRequestSeconds" . | int64 -}}
{{- dig "limits" "shutdown_grace_seconds" $longest .Values.gateway.settings | int64 }}
{{- end }}

{{- define "proctor.engineSecretName" -}}
{{- default (printf "%s-engine" (include "proctor.fullname" .)) .Values.engine.apiKey.existingSecret }}
{{- end }}

{{- define "proctor.hasEngineSecret" -}}
{{- if or .Values.engine.enabled .Values.engine.apiKey.existingSecret }}true{{ end }}
{{- end }}

{{- define "proctor.ledgerSecretName" -}}
{{- default (printf "%s-ledger" (include "proctor.fullname" .)) .Values.ledger.existingSecret }}
{{- end }}

{{- define "proctor.hasLedger" -}}
{{- if or .Values.ledger.existingSecret .Values.ledger.url }}true{{ end }}
{{- end }}

{{/* The identity of series in Prometheus, as the ServiceMonitor's targets have it. */}}
{{- define "proctor.series" -}}
{namespace={{ .Release.Namespace | quote }},service={{ printf "%s-metrics" (include "proctor.fullname" .) | quote }}}
{{- end }}

{{/* The volumes that a read-only root file system needs. */}}
{{- define "proctor.writable.volumes" -}}
- name: tmp
  emptyDir: {}
- name: home
  emptyDir: {}
{{- end }}

{{- define "proctor.writable.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: home
  mountPath: /home/proctor
{{- end }}

{{/* Takes the values of the gateway or of the engine: where its pods may run. */}}
{{- define "proctor.scheduling" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "proctor.huggingFaceToken" -}}
{{- with .Values.huggingFace.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.huggingFace.key }}
{{- end }}
{{- end }}
