{{/* The generated list: functions, events, trust domains. */}}
{{- define "shop.list" -}}
{{- .Files.Get "files/functions.yaml" -}}
{{- end -}}

{{/* Labels of every object; never of a revision template, where each change creates a revision. */}}
{{- define "shop.labels" -}}
app.kubernetes.io/part-of: msa-shop
{{ include "shop.release" . }}
{{- end -}}

{{/* Labels that change with a release. */}}
{{- define "shop.release" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{/* Labels of a function's objects: list [root, function]. */}}
{{- define "shop.functionLabels" -}}
app.kubernetes.io/name: {{ (index . 1).name }}
app.kubernetes.io/part-of: msa-shop
msa-shop/trust-domain: {{ (index . 1).domain }}
{{ include "shop.release" (index . 0) }}
{{- end -}}

{{/* registry/repository@digest, or :tag, of one image: list [root, image]. */}}
{{- define "shop.imageOf" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $tag := $image.tag | default $root.Chart.AppVersion -}}
{{- if and $root.Values.requireDigests (not $image.digest) -}}
{{- fail (printf "%s has no digest, and requireDigests is true: set image.digest and toolsImage.digest (and those of every bundled image)" $image.repository) -}}
{{- end -}}
{{- $name := ternary (printf "%s/%s" $image.registry $image.repository) $image.repository (ne ($image.registry | default "") "") -}}
{{- if $image.digest -}}
{{ $name }}@{{ $image.digest }}
{{- else -}}
{{ $name }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/* Whether the cluster has an API: list [root, "group/version/Kind"]. */}}
{{- define "shop.has" -}}
{{- $root := index . 0 -}}
{{- $api := index . 1 -}}
{{- if or ($root.Capabilities.APIVersions.Has $api) (has $api $root.Values.assumeApis) -}}true{{- end -}}
{{- end -}}

{{/* Whether KEDA starts the ticks. */}}
{{- define "shop.hasKeda" -}}
{{- if and .Values.keda.enabled (include "shop.has" (list . "keda.sh/v1alpha1/ScaledJob")) -}}true{{- end -}}
{{- end -}}

{{/* Whether the Prometheus operator scrapes the metrics port. */}}
{{- define "shop.hasPodMonitor" -}}
{{- if and .Values.podMonitor.enabled (include "shop.has" (list . "monitoring.coreos.com/v1/PodMonitor")) }}true{{- end -}}
{{- end -}}

{{/* Whether the bundled Prometheus does: without the Kubernetes API functions push their metrics. */}}
{{- define "shop.hasPrometheus" -}}
{{- if and .Values.observability.enabled .Values.observability.kubernetesApi }}true{{- end -}}
{{- end -}}

{{/* The address that functions publish events to. */}}
{{- define "shop.brokerUrl" -}}
{{- $in := printf "%s/%s" .Release.Namespace .Values.broker.name -}}
{{- if .Values.broker.url -}}
{{ .Values.broker.url }}
{{- else if eq .Values.broker.class "kafka" -}}
http://kafka-broker-ingress.knative-eventing.svc.cluster.local/{{ $in }}
{{- else if eq .Values.broker.class "rabbitmq" -}}
http://{{ .Values.broker.name }}-broker-ingress.{{ .Release.Namespace }}.svc.cluster.local
{{- else -}}
http://broker-ingress.knative-eventing.svc.cluster.local/{{ $in }}
{{- end -}}
{{- end -}}

{{/* Fails where the broker would not enforce an EventPolicy. */}}
{{- define "shop.checkEventPolicy" -}}
{{- if eq .Values.broker.class "rabbitmq" -}}
{{- fail "broker.eventPolicy: brokers of the class rabbitmq check no tokens" -}}
{{- end -}}
{{- if .Values.broker.url -}}
{{- fail "broker.eventPolicy: the broker at broker.url is not one of this namespace" -}}
{{- end -}}
{{- if not (include "shop.has" (list . "eventing.knative.dev/v1alpha1/EventPolicy")) -}}
{{- fail "broker.eventPolicy: this cluster has no EventPolicy; Knative Eventing has it from 1.15 on" -}}
{{- end -}}
{{- end -}}

{{/* One function of the list, with its values merged over its spec: list [root, function]. */}}
{{- define "shop.sized" -}}
{{- $root := index . 0 -}}
{{- $function := index . 1 -}}
{{- $own := get $root.Values.functions $function.function | default dict -}}
{{- $resources := dict "requests" (dict "cpu" (printf "%vm" (int $function.cpuMillis)) "memory" (printf "%vMi" (int $function.memoryMib))) "limits" (dict "cpu" "1" "memory" (printf "%vMi" (mul 2 (int $function.memoryMib)))) -}}
{{- $sized := dict "concurrency" (int (dig "concurrency" $function.concurrency $own)) "minScale" (int (dig "minScale" 0 $own)) "maxScale" (int (dig "maxScale" $function.maxScale $own)) "activationScale" (int (dig "activationScale" 0 $own)) "resources" (mergeOverwrite $resources (dig "resources" (dict) $own)) -}}
{{- if gt $sized.minScale $sized.maxScale -}}
{{- fail (printf "functions.%s: minScale %d is more than maxScale %d" $function.function $sized.minScale $sized.maxScale) -}}
{{- end -}}
{{- toYaml $sized -}}
{{- end -}}

{{/* Σ(maxScale × concurrency) of the functions with a database; fails above the limit. */}}
{{- define "shop.connections" -}}
{{- $root := . -}}
{{- $sum := 0 -}}
{{- range (include "shop.list" . | fromYaml).functions -}}
{{- if hasKey .podLabels "msa-shop/reaches-database" -}}
{{- $sized := include "shop.sized" (list $root .) | fromYaml -}}
{{- $sum = add $sum (mul $sized.maxScale $sized.concurrency) -}}
{{- end -}}
{{- end -}}
{{- if gt (int $sum) (int (include "shop.connectionsMax" .)) -}}
{{- fail (printf "functions may open %d database connections, but only %s are accepted: lower functions.*.maxScale, or raise pgbouncer.maxClientConnections or postgresql.maxConnections" (int $sum) (include "shop.connectionsMax" .)) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{/* The maximum of connections of PgBouncer, or of PostgreSQL. */}}
{{- define "shop.connectionsMax" -}}
{{- if .Values.pgbouncer.enabled -}}
{{- int .Values.pgbouncer.maxClientConnections -}}
{{- else -}}
{{- sub (int .Values.postgresql.maxConnections) 10 -}}
{{- end -}}
{{- end -}}

{{/* Fails in the prod profile for values that functions would reject; values.schema.json has more. */}}
{{- define "shop.checkProfile" -}}
{{- if eq .Values.profile "prod" -}}
{{- $settings := .Values.settings -}}
{{- $wrong := dict "settings.SETTLEMENTS_AUTH other than finance" (ne $settings.SETTLEMENTS_AUTH "finance") "settings.RATE_LIMIT_PER_MINUTE=0" (eq (toString $settings.RATE_LIMIT_PER_MINUTE) "0") "gateway.tls=false" (not .Values.gateway.tls) "migration.seed" .Values.migration.seed "pgbouncer.serverTls other than verify-full for an external database" (and .Values.pgbouncer.enabled (not .Values.postgresql.bundled) (ne .Values.pgbouncer.serverTls "verify-full")) "an empty networkPolicy.databaseNetworks for an external database" (and .Values.networkPolicy.enabled (not .Values.postgresql.bundled) (not .Values.networkPolicy.databaseNetworks)) "an empty databaseReplica.networks" (and .Values.networkPolicy.enabled .Values.databaseReplica.enabled (not .Values.databaseReplica.networks)) "an empty networkPolicy.redisNetworks for an external Redis" (and .Values.networkPolicy.enabled (not .Values.redis.bundled) (not .Values.networkPolicy.redisNetworks)) -}}
{{- range $name, $is_wrong := $wrong -}}
{{- if $is_wrong -}}
{{- fail (printf "the prod profile rejects %s" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The settings of all functions that are not secret. */}}
{{- define "shop.settings" -}}
{{- include "shop.checkProfile" . -}}
SHOP_PROFILE: {{ .Values.profile }}
BROKER_CLASS: {{ .Values.broker.class }}
BROKER_URL: {{ include "shop.brokerUrl" . | quote }}
{{- if .Values.broker.eventPolicy }}
BROKER_TOKEN_PATH: /var/run/shop/secrets/broker-token
{{- end }}
{{- if .Values.databaseReplica.enabled }}
DATABASE_REPLICA_LAG_SECONDS: {{ .Values.databaseReplica.lagSeconds | quote }}
{{- end }}
DATABASE_PREPARE: {{ ternary "off" "on" .Values.pgbouncer.transactionMode | quote }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- if or (include "shop.hasPodMonitor" .) (include "shop.hasPrometheus" .) }}
METRICS_PORT: "9095"
{{- end }}
{{- if .Values.observability.enabled }}
# traces; metrics too where pods cannot be discovered
OTEL_EXPORTER_OTLP_ENDPOINT: http://shop-collector:4318
OTEL_METRICS_EXPORTER: {{ ternary "none" "otlp" .Values.observability.kubernetesApi }}
OTEL_TRACES_SAMPLER: parentbased_traceidratio
OTEL_TRACES_SAMPLER_ARG: {{ .Values.observability.sampling | quote }}
{{- end }}
{{- end -}}
