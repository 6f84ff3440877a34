{{- define "ato.name" -}}{{ default "adapter-training-operator" .Values.nameOverride }}{{- end }}

{{- define "ato.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride }}{{ else if contains (include "ato.name" .) .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name (include "ato.name" .) | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "ato.selector" -}}
app.kubernetes.io/name: {{ include "ato.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ato.labels" -}}
{{ include "ato.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "ato.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "ato.fullname" .) .Values.serviceAccount.name }}{{ else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "ato.imagesNeeded" -}}
image.repository and trainer.image have to name the two images in a registry that your nodes reach. Build them (docker build --target operator, docker build --target trainer), push them, and add --set image.repository=REGISTRY/adapter-training-operator --set trainer.image=REGISTRY/adapter-trainer:{{ .Chart.AppVersion }}
{{- end }}

{{- define "ato.image" -}}
{{- $repository := required (include "ato.imagesNeeded" .) .Values.image.repository }}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}{{ else }}{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{- define "ato.trainerImage" -}}
{{- required (include "ato.imagesNeeded" .) .Values.trainer.image }}
{{- end }}

{{- define "ato.certificateSecret" -}}
{{- default (printf "%s-webhook" (include "ato.fullname" .)) .Values.webhook.certificates.secretName }}
{{- end }}

{{/* Of cluster-scoped objects: releases of one name, each for one namespace, may stand in several namespaces. */}}
{{- define "ato.clusterName" -}}
{{- if .Values.watchNamespace }}{{ printf "%s-%s" (include "ato.fullname" .) .Release.Namespace }}{{ else }}{{ include "ato.fullname" . }}{{ end }}
{{- end }}

{{/* User and groups, as given; none where the cluster assigns them. */}}
{{- define "ato.users" -}}
{{- $users := dict }}
{{- if not .Values.openshift }}
{{- range $name, $id := .Values.podSecurityContext }}
{{- if $id }}{{ $_ := set $users $name (int64 $id) }}{{ end }}
{{- end }}
{{- end }}
{{- toJson $users }}
{{- end }}

{{/* What the operator fills in where a job says nothing, as JSON. */}}
{{- define "ato.jobDefaults" -}}
{{- $defaults := dict "securityContext" (include "ato.users" . | fromJson) }}
{{- range $name, $value := .Values.jobs }}
{{- if $value }}{{ $_ := set $defaults $name $value }}{{ end }}
{{- end }}
{{- toJson $defaults }}
{{- end }}

{{/* Constraints; those without a selector count the pods of the component. Takes (dict "root" . "component" NAME "given" LIST). */}}
{{- define "ato.spread" -}}
{{- $labels := merge (dict "app.kubernetes.io/component" .component) (include "ato.selector" .root | fromYaml) }}
{{- $found := list }}
{{- range .given }}
{{- $found = append $found (merge (deepCopy .) (dict "labelSelector" (dict "matchLabels" $labels))) }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{- define "ato.podSecurity" -}}
runAsNonRoot: true
{{- range $name, $id := include "ato.users" . | fromJson }}
{{ $name }}: {{ int64 $id }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ato.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
