{{/* Head of a NetworkPolicy: list [root, name]. */}}
{{- define "shop.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: shop-{{ index . 1 }}
  namespace: {{ (index . 0).Release.Namespace }}
  labels: {{ include "shop.labels" (index . 0) | nindent 4 }}
{{- end -}}

{{/* Peers: every pod of these namespaces. */}}
{{- define "shop.namespaces" -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values: {{ toYaml . | nindent 8 }}
{{- end -}}

{{/* An egress rule to the pods of one of the chart's servers: list [name, port]. */}}
{{- define "shop.toPods" -}}
to:
  - podSelector:
      matchLabels: {app.kubernetes.io/name: {{ index . 0 }}}
ports:
  - {port: {{ int (index . 1) }}, protocol: TCP}
{{- end -}}

{{/* An egress rule to PostgreSQL itself: list [root, ports of an external one]. */}}
{{- define "shop.toDatabase" -}}
{{- $values := (index . 0).Values -}}
{{- if $values.postgresql.bundled -}}
{{ include "shop.toPods" (list "shop-postgresql" 5432) }}
{{- else -}}
{{ include "shop.outTo" (list $values.networkPolicy.databaseNetworks (index . 1)) }}
{{- end -}}
{{- end -}}

{{/* An egress rule to ports, anywhere or only to networks: list [networks, ports]. */}}
{{- define "shop.outTo" -}}
{{- if index . 0 -}}
to:
  {{- range index . 0 }}
  - ipBlock: {cidr: {{ . }}}
  {{- end }}
{{ end -}}
ports:
  {{- range index . 1 }}
  - {port: {{ int . }}, protocol: TCP}
  {{- end }}
{{- end -}}

{{/* Lets the pods of an app reach the Kubernetes API, which no selector names: list [root, app, name]. */}}
{{- define "shop.apiPolicy" -}}
{{ include "shop.policy" (list (index . 0) (index . 2)) }}
spec:
  podSelector:
    matchLabels: {app.kubernetes.io/name: {{ index . 1 }}}
  policyTypes: [Egress]
  egress:
    - ports:
        - {port: 443, protocol: TCP}
        - {port: 6443, protocol: TCP}
{{- end -}}
