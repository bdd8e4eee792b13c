{{/* Pod Security "restricted", with a read-only root file system. */}}
{{- define "shop.hardened" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* A pod without an API token and without variables for Services. */}}
{{- define "shop.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Settings and public keys. */}}
{{- define "shop.environment" -}}
- configMapRef:
    name: shop-settings
- configMapRef:
    name: {{ .Values.publicKeys.existingConfigMap }}
{{- end -}}

{{/* The container of a function: list [root, function]. */}}
{{- define "shop.container" -}}
{{- $root := index . 0 -}}
{{- $function := index . 1 -}}
{{- $sized := include "shop.sized" . | fromYaml -}}
image: {{ include "shop.imageOf" (list $root $root.Values.image) }}
{{- with $root.Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
args: [{{ $function.function }}]
ports:
  - name: http1
    containerPort: 8080
envFrom: {{ include "shop.environment" $root | nindent 2 }}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  {{- if $function.secrets }}
  - name: secrets
    mountPath: /var/run/shop/secrets
    readOnly: true
  {{- end }}
resources: {{ toYaml $sized.resources | nindent 2 }}
securityContext: {{ include "shop.hardened" $root | nindent 2 }}
{{- end -}}

{{/* A source of a projected volume: the token for the broker. */}}
{{- define "shop.brokerToken" -}}
# valid for the broker only; kubelet renews it
- serviceAccountToken:
    path: broker-token
    audience: {{ printf "eventing.knative.dev/broker/%s/%s" .Release.Namespace .Values.broker.name | lower }}
    expirationSeconds: 3600
{{- end -}}

{{/* The volumes of a function: list [root, function]. */}}
{{- define "shop.volumes" -}}
{{- $root := index . 0 -}}
{{- $isSender := hasKey (index . 1).podLabels "msa-shop/reaches-broker" -}}
- name: tmp
  emptyDir:
    sizeLimit: 32Mi
{{- with (index . 1).secrets }}
- name: secrets
  projected:
    sources:
      {{- range . }}
      - secret:
          name: {{ . }}
      {{- end }}
      {{- if and $root.Values.broker.eventPolicy $isSender }}
      {{- include "shop.brokerToken" $root | nindent 6 }}
      {{- end }}
{{- end }}
{{- end -}}

{{/* The Job of one tick: list [root, function, schedule]. */}}
{{- define "shop.tickJob" -}}
{{- $root := index . 0 -}}
{{- $function := index . 1 -}}
backoffLimit: 2
activeDeadlineSeconds: {{ mul 3 (add (int $function.requestSeconds) 15) }}
template:
  metadata:
    labels:
      app.kubernetes.io/name: {{ $function.name }}
      app.kubernetes.io/part-of: msa-shop
      msa-shop/kind: tick
      msa-shop/trust-domain: clock
  spec:
    serviceAccountName: shop-clock
    {{- include "shop.podBasics" $root | nindent 4 }}
    # a tick without success is sent again
    restartPolicy: OnFailure
    containers:
      - name: tick
        image: {{ include "shop.imageOf" (list $root $root.Values.image) }}
        {{- with $root.Values.image.pullPolicy }}
        imagePullPolicy: {{ . }}
        {{- end }}
        command: [python, -m, tools.tick]
        args: [{{ index . 2 }}, "http://{{ $function.name }}.{{ $root.Release.Namespace }}.svc.cluster.local/events"]
        envFrom: {{ include "shop.environment" $root | nindent 10 }}
        volumeMounts:
          - name: tmp
            mountPath: /tmp
          - name: secrets
            mountPath: /var/run/shop/secrets
            readOnly: true
        resources:
          requests: {cpu: 10m, memory: 64Mi}
          limits: {cpu: "1", memory: 128Mi}
        securityContext: {{ include "shop.hardened" $root | nindent 10 }}
    volumes:
      - name: tmp
        emptyDir: {sizeLimit: 32Mi}
      - name: secrets
        secret: {secretName: shop-clock}
{{- end -}}

{{/* The complete delivery block for requests of this duration: list [root, seconds]. */}}
{{- define "shop.delivery" -}}
{{- $root := index . 0 -}}
retry: {{ int $root.Values.broker.delivery.retry }}
backoffPolicy: exponential
backoffDelay: {{ $root.Values.broker.delivery.backoffDelay }}
timeout: PT{{ add (int (index . 1)) 15 }}S
{{- range (include "shop.list" $root | fromYaml).functions }}
{{- if .receivesDeadLetters }}
deadLetterSink:
  ref:
    apiVersion: serving.knative.dev/v1
    kind: Service
    name: {{ .name }}
    namespace: {{ $root.Release.Namespace }}
  uri: /events
{{- end }}
{{- end }}
{{- end -}}


{{/* Labels of pods with the operators' commands; network policies select by what a pod reaches. */}}
{{- define "shop.toolsLabels" -}}
app.kubernetes.io/part-of: msa-shop
msa-shop/kind: tools
msa-shop/reaches-database: "true"
msa-shop/reaches-provider: "true"
{{- if .Values.databaseReplica.enabled }}
msa-shop/reaches-replica: "true"
{{- end }}
{{- end -}}

{{/* A volume with the token of the service account for the Kubernetes API. */}}
{{- define "shop.apiToken" -}}
- name: token
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
{{- end -}}

{{/* A pod with the operators' commands and their database roles: list [root, command, arguments, whether it reaches the Kubernetes API]. */}}
{{- define "shop.toolsPod" -}}
{{- $root := index . 0 -}}
serviceAccountName: shop-tools
{{ include "shop.podBasics" $root }}
containers:
  - name: shop
    image: {{ include "shop.imageOf" (list $root $root.Values.toolsImage) }}
    {{- with $root.Values.toolsImage.pullPolicy }}
    imagePullPolicy: {{ . }}
    {{- end }}
    command: [{{ index . 1 }}]
    args: {{ toJson (index . 2) }}
    envFrom: {{ include "shop.environment" $root | nindent 6 }}
    {{- if index . 3 }}
    env:
      - {name: SHOP_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    {{- end }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: secrets, mountPath: /var/run/shop/secrets, readOnly: true}
      {{- if index . 3 }}
      - {name: token, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
      {{- end }}
    resources: {{ toYaml $root.Values.tools.resources | nindent 6 }}
    securityContext: {{ include "shop.hardened" $root | nindent 6 }}
volumes:
  - name: tmp
    emptyDir: {sizeLimit: 32Mi}
  - name: secrets
    projected:
      sources:
        - secret:
            name: shop-auditor
            items:
              - {key: database-url, path: auditor-database-url}
              {{- if $root.Values.databaseReplica.enabled }}
              - {key: database-replica-url, path: auditor-database-replica-url}
              {{- end }}
        - secret:
            name: shop-ops
            items: [{key: database-url, path: ops-database-url}]
        {{- if eq (index . 1) "sleep" }}
        # neither is for the audits, which manage no accounts
        - secret:
            name: shop-accounts
            items: [{key: database-url, path: accounts-database-url}]
        - secret:
            name: shop-links
        {{- end }}
        - secret:
            name: shop-redis
        - secret:
            name: shop-payment-provider
        {{- if $root.Values.broker.eventPolicy }}
        {{- include "shop.brokerToken" $root | nindent 8 }}
        {{- end }}
  {{- if index . 3 }}
  {{- include "shop.apiToken" $root | nindent 2 }}
  {{- end }}
{{- end -}}
