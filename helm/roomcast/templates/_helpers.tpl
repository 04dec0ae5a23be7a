{{- define "roomcast.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 48 | trimSuffix "-" }}
{{- end }}

{{- /* A name may have 63 characters. 48 of them leave room for the longest suffix, -loadtest-9999. */}}
{{- define "roomcast.fullname" -}}
{{- $name := include "roomcast.name" . -}}
{{- $both := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{ .Values.fullnameOverride | default $both | trunc 48 | trimSuffix "-" }}
{{- end }}

{{- /* The selector without app.kubernetes.io/component, which each kind of pod and Service adds. */}}
{{- define "roomcast.selector" -}}
app.kubernetes.io/name: {{ include "roomcast.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "roomcast.labels" -}}
{{ include "roomcast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "roomcast.image" -}}
{{- with .Values.image -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "roomcast.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "roomcast.fullname" .) "default") }}
{{- end }}

{{- define "roomcast.hasRedis" -}}
{{ if or .Values.redis.url .Values.redis.existingSecret.name .Values.trialRedis.enabled }}true{{ end }}
{{- end }}

{{- /* The node's options as environment variables. They are in the pod template and not in a ConfigMap, so that the old pods
keep their options if an upgrade fails. Helm reads every number as a float, but the node accepts only whole numbers. Lists and
tables in tables cannot be variables: roomcast.file writes them. */}}
{{- define "roomcast.options" -}}
{{- $options := dict -}}
{{- range $key, $value := .Values.config -}}
{{- range $inner, $value := kindIs "map" $value | ternary $value (dict "" $value) -}}
{{- if not (or (kindIs "slice" $value) (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{- $name := list "ROOMCAST" $key $inner | compact | join "_" | upper -}}
{{- $_ := set $options $name (kindIs "float64" $value | ternary (int64 $value) $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $options }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{- /* The tables that can only be in the node's configuration file; empty if there are none. The file is an annotation of the
pod, for the same reason as the options are variables. */}}
{{- define "roomcast.file" -}}
{{- $tables := dict -}}
{{- range $name := list "auth" "hooks" -}}
{{- $table := dict -}}
{{- range $key, $value := get $.Values.config $name | default dict -}}
{{- if or (kindIs "slice" $value) (kindIs "map" $value) }}{{ $_ := set $table $key $value }}{{ end -}}
{{- end -}}
{{- if $table }}{{ $_ := set $tables $name $table }}{{ end -}}
{{- end -}}
{{- range $name := list "backend" "role" -}}
{{- with get $.Values.config $name }}{{ $_ := set $tables $name . }}{{ end -}}
{{- end -}}
{{- if $tables }}{{ toToml $tables }}{{ end -}}
{{- end }}

{{- /* Whether the nodes authenticate clients, as far as the chart knows. */}}
{{- define "roomcast.authenticates" -}}
{{- with .Values.config.auth }}{{ if or .issuer (hasKey . "anonymous") }}true{{ end }}{{ end -}}
{{- end }}

{{- /* Converts a time of the drain to seconds. roomcast.validate accepts only whole seconds and minutes. */}}
{{- define "roomcast.seconds" -}}
{{ mul (regexFind "^[0-9]+" . | int) (hasSuffix "m" . | ternary 60 1) }}
{{- end }}

{{- /* After drain.timeout, a node flushes output for at most 2 s. The other 3 s are a reserve, so that Kubernetes kills no node that drains. */}}
{{- define "roomcast.gracePeriod" -}}
{{ add .Values.preStopSleepSeconds (include "roomcast.seconds" .Values.config.drain.timeout) 5 }}
{{- end }}

{{- /* The URL by which clients in the cluster reach the nodes. */}}
{{- define "roomcast.url" -}}
{{- $scheme := .Values.tls.existingSecret | empty | ternary "ws" "wss" -}}
{{ $scheme }}://{{ include "roomcast.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.public.port }}/socket
{{- end }}

{{- /* The settings of the internal port that a PodMonitor and a ServiceMonitor share. */}}
{{- define "roomcast.scrape" -}}
port: internal
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The settings that all pods of the chart share: pull secrets, rights, and the machines on which they may run. */}}
{{- define "roomcast.pod" -}}
automountServiceAccountToken: false
# Service links would set variables ROOMCAST_…, which the node reads as its options.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* The pod of a load test in the release .root, with `resources` and the arguments of `roomcast-loadtest run`. */}}
{{- define "roomcast.loadtestPod" -}}
{{- $values := .root.Values -}}
restartPolicy: Never
{{ include "roomcast.pod" .root }}
containers:
  - name: loadtest
    image: {{ $values.loadTest.image | default (include "roomcast.image" .root) }}
    imagePullPolicy: {{ $values.image.pullPolicy }}
    command: [/usr/bin/roomcast-loadtest]
    args:
      - run
      {{- toYaml .args | nindent 6 }}
      {{- with $values.loadTest.tokens.args }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      - --url
      - {{ $values.loadTest.url | default (include "roomcast.url" .root) }}
      {{- with $values.tls.caKey }}
      - --ca
      - /etc/roomcast/tls/{{ . }}
      {{- end }}
    securityContext:
      {{- toYaml $values.securityContext | nindent 6 }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    {{- if or $values.tls.caKey $values.loadTest.tokens.existingSecret }}
    volumeMounts:
      {{- if $values.tls.caKey }}
      - name: tls
        mountPath: /etc/roomcast/tls
        readOnly: true
      {{- end }}
      {{- if $values.loadTest.tokens.existingSecret }}
      - name: tokens
        mountPath: /etc/roomcast/tokens
        readOnly: true
      {{- end }}
    {{- end }}
{{- if or $values.tls.caKey $values.loadTest.tokens.existingSecret }}
volumes:
  {{- with $values.tls.caKey }}
  - name: tls
    secret:
      secretName: {{ $values.tls.existingSecret }}
      items: [{key: {{ . }}, path: {{ . }}}]
  {{- end }}
  {{- with $values.loadTest.tokens.existingSecret }}
  - name: tokens
    secret:
      secretName: {{ . }}
  {{- end }}
{{- end }}
{{- end }}
