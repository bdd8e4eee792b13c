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
