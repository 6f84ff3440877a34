{{- define "ato.name" -}}adapter-training-operator{{- end }}

{{- define "ato.fullname" -}}
{{- if contains (include "ato.name" .) .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name (include "ato.name" .) | trunc 50 | trimSuffix "-" }}{{ end }}
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

{{- define "ato.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ato.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
