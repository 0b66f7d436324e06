{{- define "annulus.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "annulus.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "annulus.labels" -}}
{{ include "annulus.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "annulus.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The same for requests and limits, and for every container of the pod: else the QoS class is not Guaranteed. */}}
{{- define "annulus.resources" -}}
{{- $amounts := dict "cpu" (.Values.cpus | toString) "memory" .Values.memory -}}
{{- if .Values.hugepages2Mi }}{{ $_ := set $amounts "hugepages-2Mi" .Values.hugepages2Mi }}{{ end -}}
requests:
{{ toYaml $amounts | indent 2 }}
limits:
{{ toYaml $amounts | indent 2 }}
{{- end }}

{{- define "annulus.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The pod, of a Deployment or a DaemonSet. */}}
{{- define "annulus.pod" -}}
metadata:
  labels:
    {{- include "annulus.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    # Another configuration is another pod.
    checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
    {{- with .Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "annulus.name" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ add .Values.drain.preStop .Values.drain.drainWait .Values.drain.grace 5 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile:
      type: Localhost
      localhostProfile: {{ .Values.seccomp.localhostProfile }}
  {{- if .Values.doctor.enabled }}
  initContainers:
    - name: doctor
      image: {{ include "annulus.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      # What could be better is told and does not keep the pod from running.
      args: [doctor, --json, --tolerate-advice]
      resources: {{ include "annulus.resources" . | nindent 8 }}
      securityContext: {{ include "annulus.securityContext" . | nindent 8 }}
  {{- end }}
  containers:
    - name: annulus
      image: {{ include "annulus.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [run, /etc/annulus/annulus.toml]
      ports:
        {{- range .Values.ports }}
        - name: {{ .name }}
          containerPort: {{ .containerPort }}
          protocol: {{ .protocol | default "TCP" }}
          {{- with .hostPort }}
          hostPort: {{ . }}
          {{- end }}
        {{- end }}
        - name: admin
          containerPort: {{ .Values.admin.port }}
      resources: {{ include "annulus.resources" . | nindent 8 }}
      securityContext: {{ include "annulus.securityContext" . | nindent 8 }}
      # Pools are taken and placed before the first client: minutes of memory are seconds.
      startupProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 1
        failureThreshold: 60
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 2
        failureThreshold: 1
      # A core that is stuck is no reason to cut the clients of the others: this asks whether the process answers.
      livenessProbe:
        httpGet: { path: /healthz, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      lifecycle:
        preStop:
          sleep: { seconds: {{ .Values.drain.preStop }} }
      volumeMounts:
        - name: config
          mountPath: /etc/annulus
          readOnly: true
        {{- with .Values.volumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "annulus.name" . }}
    {{- with .Values.volumes }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- if and .Values.topologySpread (eq .Values.kind "Deployment") }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{ include "annulus.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
{{- end }}
