{{- /* Names and labels. The templates of a component are called with (dict "root" $ "component" "operator"). */}}

{{- define "tuneyard.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- /* The stem of all names; 40 characters leave room for the longest suffix within a Service's 63. */}}
{{- define "tuneyard.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (default .Chart.Name .Values.nameOverride) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "tuneyard.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* The name of a component's Deployment, Lease and PodDisruptionBudget, and of its service account by default. */}}
{{- define "tuneyard.componentName" -}}
{{- printf "%s-%s" (include "tuneyard.fullname" .root) .component }}
{{- end }}

{{- define "tuneyard.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tuneyard.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "tuneyard.labels" -}}
{{ include "tuneyard.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tuneyard
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tuneyard.serviceAccountName" -}}
{{- $account := (index .root.Values .component).serviceAccount }}
{{- if $account.create }}
{{- default (include "tuneyard.componentName" .) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{- define "tuneyard.image" -}}
{{- $image := .Values.image }}
{{- $repository := empty $image.registry | ternary $image.repository (printf "%s/%s" $image.registry $image.repository) }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (default .Chart.AppVersion $image.tag) }}
{{- end }}
{{- end }}

{{- define "tuneyard.examplesImage" -}}
{{- default (printf "tuneyard/examples:%s" .Chart.AppVersion) .Values.examplesImage }}
{{- end }}

{{- /* HOST:PORT to listen on, from (dict "root" $ "port" 8080). */}}
{{- define "tuneyard.listen" -}}
{{- $host := .root.Values.listenHost }}
{{- contains ":" $host | ternary (printf "[%s]" $host) $host }}:{{ .port }}
{{- end }}
