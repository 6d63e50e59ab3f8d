{{- /* What the pods of all components have in common. Called with (dict "root" $ "component" "operator"). */}}

{{- define "tuneyard.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels:
  {{- include "tuneyard.selectorLabels" . | nindent 2 }}
  app.kubernetes.io/part-of: tuneyard
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "tuneyard.podSettings" -}}
{{- $values := index .root.Values .component -}}
serviceAccountName: {{ include "tuneyard.serviceAccountName" . }}
# the token is mounted below, into the one container that talks to the API server
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
{{- with .root.Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $ours := dict "labelSelector" (dict "matchLabels" (include "tuneyard.selectorLabels" $ | fromYaml)) "matchLabelKeys" (list "pod-template-hash") }}
{{- toYaml (list (hasKey . "labelSelector" | ternary . (merge (deepCopy .) $ours))) | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tuneyard.container" -}}
image: {{ include "tuneyard.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with .root.Values.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
resources:
  {{- toYaml (index .root.Values .component).resources | nindent 2 }}
{{- end }}

{{- /* Arguments that the operator and the scheduler have in common. */}}
{{- define "tuneyard.processArgs" -}}
- --serve={{ include "tuneyard.listen" (dict "root" .root "port" 8443) }}
- --lease={{ include "tuneyard.componentName" . }}
- --log-format={{ .root.Values.log.format }}
- --log-level={{ .root.Values.log.level }}
{{- with .root.Values.watchNamespace }}
- --namespace={{ . }}
{{- end }}
{{- with (index .root.Values .component).extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "tuneyard.processEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- with (index .root.Values .component).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* /healthz fails when the heartbeat of the work stops, so that the kubelet starts the container anew. */}}
{{- define "tuneyard.processProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: metrics, scheme: HTTPS}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: metrics, scheme: HTTPS}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: metrics, scheme: HTTPS}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{- define "tuneyard.processMounts" -}}
- name: tmp
  mountPath: /tmp
- name: api-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{- /* What automountServiceAccountToken would mount into every container of the pod. */}}
{{- define "tuneyard.apiTokenVolume" -}}
- name: api-token
  projected:
    sources:
    - serviceAccountToken:
        path: token
        expirationSeconds: 3607
    - configMap:
        name: kube-root-ca.crt
        items:
        - {key: ca.crt, path: ca.crt}
    - downwardAPI:
        items:
        - path: namespace
          fieldRef: {fieldPath: metadata.namespace}
{{- end }}

{{- /* What the pod of helm test and the pods of its trials have in common. */}}
{{- define "tuneyard.testPodSettings" -}}
{{- with .Values.podSecurityContext -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.test.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.test.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
