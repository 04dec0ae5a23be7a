{{- /* Rejects combinations of values that the schema cannot express. */}}
{{- define "roomcast.validate" -}}
{{- $name := include "roomcast.fullname" . -}}
{{- if regexMatch "^[0-9]|[.]" $name }}
  {{- printf "the name %q is not valid for a Service, because it begins with a digit or contains a dot; set fullnameOverride" $name | fail }}
{{- end }}
{{- $redis := compact (list .Values.redis.url .Values.redis.existingSecret.name (.Values.trialRedis.enabled | ternary "trial" "")) -}}
{{- if gt (len $redis) 1 }}
  {{- fail "more than one of redis.url, redis.existingSecret.name and trialRedis.enabled is set; set at most one" }}
{{- end }}
{{- if and (not $redis) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
  {{- fail (print "several nodes need Redis to form a cluster; set redis.url, redis.existingSecret.name or, for trials, trialRedis.enabled, "
    "or set replicas to 1 and disable autoscaling") }}
{{- end }}
{{- if and .Values.redis.ca.existingSecret .Values.redis.ca.configMap }}
  {{- fail "redis.ca.existingSecret and redis.ca.configMap are both set; set only one of them" }}
{{- end }}
{{- if and .Values.apiKey.value .Values.apiKey.existingSecret.name }}
  {{- fail "apiKey.value and apiKey.existingSecret.name are both set; set only one of them" }}
{{- end }}
{{- with .Values.apiKey.existingSecret }}
  {{- if and (or .publishKey .readKey) (not .name) }}
    {{- fail "apiKey.existingSecret.publishKey or apiKey.existingSecret.readKey is set without apiKey.existingSecret.name; set the name of the Secret that contains these keys" }}
  {{- end }}
{{- end }}
{{- if include "roomcast.file" . }}
  {{- range .Values.extraEnv }}
    {{- if eq .name "ROOMCAST_CONFIG" }}
      {{- fail "extraEnv sets ROOMCAST_CONFIG, but config.auth, config.backend, config.hooks or config.role contains tables, for which the chart creates the file; move the tables of your file to config, and remove ROOMCAST_CONFIG" }}
    {{- end }}
  {{- end }}
{{- end }}
{{- if and .Values.tls.caKey (not .Values.tls.existingSecret) }}
  {{- fail "tls.caKey is set without tls.existingSecret, the Secret that contains this key; set both or neither" }}
{{- end }}
{{- with .Values.autoscaling }}
  {{- if and .enabled (not .cpu.enabled) (not .connections.enabled) }}
    {{- fail "autoscaling is enabled without a metric; set autoscaling.cpu.enabled or autoscaling.connections.enabled to true" }}
  {{- end }}
  {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
    {{- printf "autoscaling.minReplicas (%d) is greater than autoscaling.maxReplicas (%d); lower it, or raise autoscaling.maxReplicas"
      (int .minReplicas) (int .maxReplicas) | fail }}
  {{- end }}
{{- end }}
{{- range $key, $time := .Values.config.drain }}
  {{- if not (regexMatch "^(0|[1-9][0-9]{0,4})(s|m)$" $time) }}
    {{- printf "config.drain.%s (%s) is not a whole number of seconds or minutes; write a time such as 5s or 2m" $key $time | fail }}
  {{- end }}
{{- end }}
{{- with .Values.config.drain }}
  {{- if gt (add (include "roomcast.seconds" .delay) (include "roomcast.seconds" .duration)) (include "roomcast.seconds" .timeout | int64) }}
    {{- printf "config.drain.timeout (%s) must be at least the sum of config.drain.delay (%s) and config.drain.duration (%s)"
      .timeout .delay .duration | fail }}
  {{- end }}
{{- end }}
{{- end }}
