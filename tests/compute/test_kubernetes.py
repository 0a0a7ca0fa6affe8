"""The Kubernetes adapter: manifests against golden text, the published schemas, LeaderWorkerSet's own definition,
kubectl.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from highrise.compute.adapters.kubernetes import KubernetesLauncher
from highrise.compute.jobs import Job
from highrise.core.errors import ComputeError, InputError

yaml = pytest.importorskip("yaml", reason="pyyaml is the extra `compute`")

GOLDEN = Path(__file__).parents[1] / "golden" / "kubernetes_job.yaml"
LWS_VERSION = "v0.7.0"

JOBS = {
    "job": Job(command=("python", "a.py", "$(HOME) $$ 'x'"), image="team/app:1", namespace="ml", memory_gb=4),
    "indexed": Job(command=("train.py",), name="pretrain", image="team/app:1", nodes=2, gpus=8, torchrun=True),
    "service": Job(command=("highrise", "serve"), image="team/app@sha256:ab", kind="serve", replicas=3, gpus=1),
    "group": Job(command=("highrise", "serve"), image="team/app:1", kind="serve", nodes=2, gpus=8),
}


def kinds(name: str) -> list[str]:
    return [manifest["kind"] for manifest in KubernetesLauncher().manifests(JOBS[name])]


def test_which_objects_a_job_becomes() -> None:
    assert kinds("job") == ["Job"]
    assert kinds("indexed") == ["Service", "Job"]
    assert kinds("service") == ["Deployment", "Service"]
    assert kinds("group") == ["LeaderWorkerSet", "Service"]


def test_manifests_of_an_indexed_job_are_golden() -> None:
    assert KubernetesLauncher().render(JOBS["indexed"]) == GOLDEN.read_text()


@pytest.mark.parametrize("name", JOBS)
def test_rendered_text_reads_back_as_the_manifests(name: str) -> None:
    launcher = KubernetesLauncher()
    assert list(yaml.safe_load_all(launcher.render(JOBS[name]))) == launcher.manifests(JOBS[name])


def test_kubernetes_expands_nothing_in_the_arguments() -> None:
    (manifest,) = KubernetesLauncher().manifests(JOBS["job"])
    command = manifest["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == ["python", "a.py", "$$(HOME) $$ 'x'"]


def test_selectors_match_the_pods() -> None:
    for name in ("indexed", "service"):
        objects = KubernetesLauncher().manifests(JOBS[name])
        service = next(manifest for manifest in objects if manifest["kind"] == "Service")
        other = next(manifest for manifest in objects if manifest["kind"] != "Service")
        labels = other["spec"]["template"]["metadata"]["labels"]
        assert service["spec"]["selector"].items() <= labels.items()


def test_wait_and_log_are_refused() -> None:
    with pytest.raises(InputError, match="kubectl wait"):
        KubernetesLauncher().submit(Job(command=("a",), image="a:1", wait=True))
    with pytest.raises(InputError, match="kubectl logs"):
        KubernetesLauncher().render(Job(command=("a",), image="a:1", log=Path("x")))


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on this machine")
def test_kubectl_without_a_cluster_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nowhere = tmp_path / "config"
    nowhere.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{name: a, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: a, context: {cluster: a}}]\n"
    )
    monkeypatch.setenv("KUBECONFIG", str(nowhere))
    with pytest.raises(ComputeError, match="kubectl refused") as caught:
        KubernetesLauncher().submit(JOBS["job"])
    assert "\n" not in str(caught.value)


def test_without_kubectl_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no `kubectl`"):
        KubernetesLauncher().submit(JOBS["job"])


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_core_objects_pass_the_published_schemas(version: str) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate (108 MB) is not installed")
    checked = 0
    for job in JOBS.values():
        for manifest in KubernetesLauncher().manifests(job):
            if manifest["kind"] != "LeaderWorkerSet":
                validate.validate(json.loads(json.dumps(manifest)), version, strict=True)
                checked += 1
        group = KubernetesLauncher().manifests(JOBS["group"])[0]["spec"]["leaderWorkerTemplate"]
        for part in ("leaderTemplate", "workerTemplate"):
            pod = {"apiVersion": "v1", "kind": "Pod", **group[part]}
            validate.validate({**pod, "metadata": {**pod["metadata"], "name": "a"}}, version, strict=True)
    assert checked == 6
    with pytest.raises(validate.ValidationError):
        broken = KubernetesLauncher().manifests(JOBS["job"])[0]
        validate.validate({**broken, "spec": {**broken["spec"], "backofLimit": 0}}, version, strict=True)


def _forbid_unknown(schema: Any) -> Any:
    """Kubernetes' strict field validation, said in JSON Schema."""
    if isinstance(schema, dict):
        out = {key: _forbid_unknown(value) for key, value in schema.items()}
        if (
            isinstance(out.get("properties"), dict)
            and "type" in out
            and not out.get("x-kubernetes-preserve-unknown-fields")
        ):
            out.setdefault("additionalProperties", False)
        return out
    return [_forbid_unknown(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.slow
def test_leader_worker_set_passes_its_published_definition() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema comes with kubernetes-validate")
    if shutil.which("go") is None:
        pytest.skip("no go: the definition is read from the module sigs.k8s.io/lws")
    command = ["go", "mod", "download", "-json", f"sigs.k8s.io/lws@{LWS_VERSION}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"the module sigs.k8s.io/lws cannot be downloaded: {done.stdout} {done.stderr}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "config" / "crd" / "bases"
    definition = yaml.safe_load((folder / "leaderworkerset.x-k8s.io_leaderworkersets.yaml").read_text())
    (version,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == "v1"]
    schema = _forbid_unknown(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    group = KubernetesLauncher().manifests(JOBS["group"])[0]
    jsonschema.validate(group, schema)
    for wrong in ({"size": "two"}, {"sizes": 2}, {"restartPolicy": "Sometimes"}):
        template = {**group["spec"]["leaderWorkerTemplate"], **wrong}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**group, "spec": {**group["spec"], "leaderWorkerTemplate": template}}, schema)
