{{- /* What the schema can't express: values that do not go together. */}}
{{- define "roomcast.validate" -}}
{{- $name := include "roomcast.fullname" . -}}
{{- if regexMatch "^[0-9]|[.]" $name }}
  {{- printf "%s can't be a Service's name, which begins with a letter and has no dots: give fullnameOverride." $name | fail }}
{{- end }}
{{- $redis := compact (list .Values.redis.url .Values.redis.existingSecret.name (.Values.trialRedis.enabled | ternary "trial" "")) -}}
{{- if gt (len $redis) 1 }}
  {{- fail "Give at most one of redis.url, redis.existingSecret.name and trialRedis.enabled." }}
{{- end }}
{{- if and (not $redis) (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
  {{- fail (print "More than one node needs a Redis, or they would be clusters of one each: give redis.url, redis.existingSecret.name "
    "or, for trials, trialRedis.enabled. Without it: replicas 1, no autoscaling.") }}
{{- end }}
{{- if and .Values.redis.ca.existingSecret .Values.redis.ca.configMap }}
  {{- fail "Give redis.ca.existingSecret or redis.ca.configMap, not both." }}
{{- end }}
{{- if and .Values.apiKey.value .Values.apiKey.existingSecret.name }}
  {{- fail "Give apiKey.value or apiKey.existingSecret.name, not both." }}
{{- end }}
{{- if and .Values.tls.caKey (not .Values.tls.existingSecret) }}
  {{- fail "tls.caKey is a key of tls.existingSecret, which is not given." }}
{{- end }}
{{- with .Values.autoscaling }}
  {{- if and .enabled (not .cpu.enabled) (not .connections.enabled) }}
    {{- fail "autoscaling needs something to scale by: autoscaling.cpu.enabled or autoscaling.connections.enabled." }}
  {{- end }}
  {{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
    {{- fail "autoscaling.minReplicas is over autoscaling.maxReplicas." }}
  {{- end }}
{{- end }}
{{- range $key, $time := .Values.config.drain }}
  {{- if not (regexMatch "^(0|[1-9][0-9]{0,4})(s|m)$" $time) }}
    {{- printf "config.drain.%s (%s) must be whole seconds or minutes, such as 5s or 2m." $key $time | fail }}
  {{- end }}
{{- end }}
{{- with .Values.config.drain }}
  {{- if gt (add (include "roomcast.seconds" .delay) (include "roomcast.seconds" .duration)) (include "roomcast.seconds" .timeout | int64) }}
    {{- printf "config.drain.timeout (%s) must be at least the sum of config.drain.delay (%s) and config.drain.duration (%s)."
      .timeout .delay .duration | fail }}
  {{- end }}
{{- end }}
{{- end }}
