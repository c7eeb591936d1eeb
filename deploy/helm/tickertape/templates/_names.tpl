{{- define "tickertape.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "tickertape.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: relay
{{- end }}

{{- define "tickertape.shipperSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: shipper
{{- end }}

{{- define "tickertape.labels" -}}
{{ include "tickertape.selector" . }}
{{ include "tickertape.commonLabels" . }}
{{- end }}

{{- define "tickertape.shipperLabels" -}}
{{ include "tickertape.shipperSelector" . }}
{{ include "tickertape.commonLabels" . }}
{{- end }}

{{- define "tickertape.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "tickertape.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}{{ end }}
{{- end }}

{{- /* Further options of a command, as items of its arguments; a list is an option that is repeated. */ -}}
{{- define "tickertape.options" -}}
{{- range $name, $values := . }}
{{- range $value := ternary $values (list $values) (kindIs "slice" $values) }}
{{- if kindIs "bool" $value }}
- {{ if $value }}--{{ else }}--no-{{ end }}{{ $name }}
{{- else if kindIs "float64" $value }}
- {{ printf "--%s=%v" $name (ternary (int64 $value) $value (eq (float64 (int64 $value)) $value)) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tickertape.revokedSecret" -}}
{{- with .Values.auth }}{{ if and (eq .mode "jwt") .revoked }}{{ .revokedSecret | default .existingSecret }}{{ end }}{{ end }}
{{- end }}

{{- /* Names of the Service for metrics, and of single pods behind it. */ -}}
{{- define "tickertape.opsHosts" -}}
{{- $service := printf "%s-metrics.%s" (include "tickertape.name" .) .Release.Namespace }}
{{- $names := list }}
{{- range list $service (printf "%s.svc" $service) (printf "%s.svc.%s" $service .Values.ops.clusterDomain) }}
{{- $names = concat $names (list . (printf "*.%s" .)) }}
{{- end }}
{{- join "," (concat $names .Values.ops.allowedHosts) }}
{{- end }}

{{- /* Fail on invalid values here instead of in a pod that keeps restarting. */ -}}
{{- define "tickertape.problems" -}}
{{- if eq .Values.auth.mode "jwt" }}
{{- if and .Values.auth.existingSecret .Values.auth.jwksUrl }}
{{- fail "auth.existingSecret and auth.jwksUrl are both set; set only one of them" }}
{{- else if and .Values.auth.existingSecret .Values.auth.oidcIssuer }}
{{- fail "auth.existingSecret and auth.oidcIssuer are both set; set only one of them (revocations have auth.revokedSecret)" }}
{{- else if and .Values.auth.oidcIssuer .Values.auth.jwksUrl }}
{{- fail "auth.oidcIssuer and auth.jwksUrl are both set; set only one of them" }}
{{- else if and .Values.auth.oidcIssuer (not .Values.auth.audience) }}
{{- fail "auth.oidcIssuer is set without auth.audience, so tokens for other services would be accepted; set it" }}
{{- else if not (or .Values.auth.existingSecret .Values.auth.jwksUrl .Values.auth.oidcIssuer) }}
{{- fail "auth.mode is jwt without a key; set auth.existingSecret, auth.jwksUrl or auth.oidcIssuer, or auth.mode=none to let everyone read" }}
{{- end }}
{{- if and (eq .Values.auth.algorithm "HS256") (not .Values.auth.existingSecret) }}
{{- fail "auth.algorithm is HS256, but the keys of an issuer are public; set auth.existingSecret, or another algorithm" }}
{{- else if and .Values.auth.oidcIssuer .Values.auth.issuer (ne .Values.auth.oidcIssuer .Values.auth.issuer) }}
{{- fail "auth.issuer differs from auth.oidcIssuer; remove auth.issuer" }}
{{- end }}
{{- if and .Values.auth.revokedSecret (not .Values.auth.revoked) }}
{{- fail "auth.revokedSecret is set, but auth.revoked is false; remove one of them" }}
{{- end }}
{{- else }}
{{- range $name := list "existingSecret" "jwksUrl" "oidcIssuer" "issuer" "audience" "revokedSecret" }}
{{- if get $.Values.auth $name }}
{{- fail (printf "auth.%s is set, but auth.mode is none, which knows no tokens; remove one of them" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not (or .Values.autoscaling.targetConnections .Values.autoscaling.targetCPU)) }}
{{- fail "autoscaling is enabled, but targetConnections and targetCPU are both 0; set one of them" }}
{{- end }}
{{- /* Of two equal options the last one counts: one of these could lift a restriction. */ -}}
{{- $own := "host port ops-host ops-port ops-allowed-hosts workers drain log-format auth insecure allowed-origins trusted-proxies" }}
{{- $own = print $own " nats-url nats-monitoring-url nats-user nats-password nats-password-file nats-token nats-creds nats-ca nats-inbox-prefix" }}
{{- $own = print $own " subject-prefix streams-max-bytes jwt-algorithm jwt-key jwt-key-file jwt-jwks-url oidc-issuer" }}
{{- range $name := splitList " " (print $own " jwt-issuer jwt-audience jwt-revoked-file") }}
{{- if hasKey $.Values.options $name }}
{{- fail (printf "options.%s is set by the chart, or is a secret and must come from a Secret" $name) }}
{{- end }}
{{- end }}
{{- $own = "host state-dir root metrics-host metrics-port metrics-allowed-hosts subject-prefix" }}
{{- $own = print $own " nats-url nats-user nats-password nats-password-file nats-token nats-creds nats-ca nats-inbox-prefix" }}
{{- /* These end the program, which would start again and again, or need what the image or the pod does not have. */ -}}
{{- range $name := splitList " " (print $own " once status dry-run json journal") }}
{{- if hasKey $.Values.shipper.options $name }}
{{- fail (printf "shipper.options.%s is set by the chart, is a secret that must come from a Secret, or is not for a DaemonSet" $name) }}
{{- end }}
{{- end }}
{{- end }}
