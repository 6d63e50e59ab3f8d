{{- /* What the roles of operator and scheduler have in common. Called with (dict "root" $ "component" "operator"). */}}

{{- /*
The name of something without a namespace, from (dict "root" $ "name" "operator"). Releases that each look after one
namespace may have the same name in different ones.
*/}}
{{- define "tuneyard.clusterWideName" -}}
{{- $name := printf "%s-%s" (include "tuneyard.fullname" .root) .name }}
{{- empty .root.Values.watchNamespace | ternary $name (printf "%s-%s" $name .root.Release.Namespace) }}
{{- end }}

{{- /* To find out who asks for metrics and whether they may; what system:auth-delegator has. */}}
{{- define "tuneyard.reviewRules" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end }}

{{- define "tuneyard.subjects" -}}
- kind: ServiceAccount
  name: {{ include "tuneyard.serviceAccountName" . }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}

{{- /* Its own Lease. A create cannot be limited to a name, since the API server does not know it yet. */}}
{{- define "tuneyard.leaseRole" -}}
{{- $name := printf "%s-lease" (include "tuneyard.componentName" .) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tuneyard.labels" . | nindent 4 }}
rules:
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "tuneyard.componentName" . }}]
  verbs: [get, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "tuneyard.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
{{ include "tuneyard.subjects" . }}
{{- end }}

{{- /*
The rules of a component, bound to its service account: `clusterRules` everywhere, `rules` in watchNamespace where that
is set and else everywhere too. Called with both as texts beside root and component.
*/}}
{{- define "tuneyard.componentRoles" -}}
{{- $clusterWide := include "tuneyard.clusterWideName" (dict "root" .root "name" .component) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $clusterWide }}
  labels:
    {{- include "tuneyard.labels" . | nindent 4 }}
rules:
{{ .clusterRules }}
{{- if not .root.Values.watchNamespace }}
{{ .rules }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $clusterWide }}
  labels:
    {{- include "tuneyard.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $clusterWide }}
subjects:
{{ include "tuneyard.subjects" . }}
{{- with .root.Values.watchNamespace }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "tuneyard.componentName" $ }}
  namespace: {{ . }}
  labels:
    {{- include "tuneyard.labels" $ | nindent 4 }}
rules:
{{ $.rules }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "tuneyard.componentName" $ }}
  namespace: {{ . }}
  labels:
    {{- include "tuneyard.labels" $ | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "tuneyard.componentName" $ }}
subjects:
{{ include "tuneyard.subjects" $ }}
{{- end }}
---
{{ include "tuneyard.leaseRole" . }}
{{- end }}
