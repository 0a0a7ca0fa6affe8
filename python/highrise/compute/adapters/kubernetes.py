"""Floor 1, Kubernetes: a job as manifests, and their submission with `kubectl apply`.

A job becomes a batch Job (an indexed one with a headless Service when it has several nodes), a service a Deployment,
a service of several nodes a LeaderWorkerSet; services get a Service. Watches nothing: the cluster's controllers do.
"""

from __future__ import annotations

import subprocess
from typing import Any

import yaml

from highrise.compute.jobs import Job
from highrise.core.errors import ComputeError, InputError

__all__ = ["KubernetesLauncher"]

Manifest = dict[str, Any]

_APPLY_SECONDS = 60
_RENDEZVOUS_PORT = 29_400
_LWS = "leaderworkerset.sigs.k8s.io"


def _escape(argument: str) -> str:
    """Kubernetes replaces $(NAME) in arguments; a doubled dollar stays one."""
    return argument.replace("$(", "$$(")


def _labels(job: Job) -> dict[str, str]:
    return {"app.kubernetes.io/name": job.name, "app.kubernetes.io/managed-by": "highrise"}


def _metadata(job: Job) -> Manifest:
    place = {"namespace": job.namespace} if job.namespace else {}
    return {"name": job.name, **place, "labels": _labels(job)}


def _command(job: Job) -> list[str]:
    command = [_escape(argument) for argument in job.command]
    if not job.torchrun:
        return command
    where = ["--standalone"]
    if job.nodes > 1:  # pod 0 of an indexed job has the host name NAME-0 below the headless Service NAME
        where = [f"--nnodes={job.nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job.name}"]
        where.append(f"--rdzv-endpoint={job.name}-0.{job.name}:{_RENDEZVOUS_PORT}")
    return ["torchrun", *where, f"--nproc-per-node={max(1, job.gpus)}", *command]


def _container(job: Job, *, serves: bool) -> Manifest:
    limits: dict[str, str | int] = {"cpu": str(job.cores)}
    if job.memory_gb is not None:
        limits["memory"] = f"{job.memory_gb}G"
    if job.gpus:
        limits["nvidia.com/gpu"] = job.gpus
    container: Manifest = {
        "name": "main",
        "image": job.image,
        "command": _command(job),
        "resources": {"requests": dict(limits), "limits": dict(limits)},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],
    }
    if serves:
        container["ports"] = [{"name": "http", "containerPort": job.port}]
        container["readinessProbe"] = {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5}
    return container


def _pod(job: Job, *, serves: bool = False, restart: str | None = None) -> Manifest:
    return {
        "metadata": {"labels": _labels(job)},
        "spec": {
            **({"restartPolicy": restart} if restart else {}),
            "containers": [_container(job, serves=serves)],
            # the 64 MB that a container gets by default is too little for NCCL and data loaders
            "volumes": [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}],
        },
    }


def _service(job: Job, selector: dict[str, str], *, headless: bool = False) -> Manifest:
    port = _RENDEZVOUS_PORT if headless else job.port
    spec: Manifest = {"selector": selector, "ports": [{"name": "rendezvous" if headless else "http", "port": port}]}
    if headless:
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(job), "spec": spec}


def _job(job: Job) -> list[Manifest]:
    pod = _pod(job, restart="Never")
    spec: Manifest = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": round(job.seconds),
        "ttlSecondsAfterFinished": 86_400,
        "template": pod,
    }
    manifests = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(job), "spec": spec}]
    if job.nodes > 1:
        spec |= {"completionMode": "Indexed", "completions": job.nodes, "parallelism": job.nodes}
        pod["spec"]["subdomain"] = job.name
        manifests.insert(0, _service(job, _labels(job), headless=True))
    return manifests


def _deployment(job: Job) -> list[Manifest]:
    spec = {
        "replicas": job.replicas,
        "selector": {"matchLabels": _labels(job)},
        "template": _pod(job, serves=True),
    }
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(job), "spec": spec}
    return [deployment, _service(job, _labels(job))]


def _leader_worker_set(job: Job) -> list[Manifest]:
    template = {
        "size": job.nodes,
        "restartPolicy": "RecreateGroupOnPodRestart",
        "leaderTemplate": _pod(job, serves=True),
        "workerTemplate": _pod(job),
    }
    spec = {"replicas": job.replicas, "leaderWorkerTemplate": template}
    group = {"apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet", "metadata": _metadata(job)}
    return [{**group, "spec": spec}, _service(job, {f"{_LWS}/name": job.name, f"{_LWS}/worker-index": "0"})]


class KubernetesLauncher:
    """The cluster of the current kubectl context."""

    def manifests(self, job: Job) -> list[Manifest]:
        """Every object of the job as plain data."""
        if job.image is None:
            raise InputError("Kubernetes runs container images: give --image, for example registry/team/highrise:0.1.0")
        if job.partition is not None:
            raise InputError("--partition is Slurm's; Kubernetes has --namespace")
        if job.log is not None:
            raise InputError(
                f"Kubernetes keeps the output itself: leave --log out and read `kubectl logs job/{job.name}`"
            )
        if job.kind == "job":
            return _job(job)
        return _deployment(job) if job.nodes == 1 else _leader_worker_set(job)

    def render(self, job: Job) -> str:
        """The manifests as one YAML stream."""
        text: str = yaml.safe_dump_all(self.manifests(job), sort_keys=False, explicit_start=True, width=1000)
        return text

    def submit(self, job: Job) -> int:
        """Hand the manifests to `kubectl apply`."""
        if job.wait:
            raise InputError(
                f"--wait is not for Kubernetes; use `kubectl wait --for=condition=complete job/{job.name}`"
            )
        text = self.render(job)
        command = ["kubectl", "apply", "--filename=-", f"--request-timeout={_APPLY_SECONDS}s"]
        try:
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, timeout=2 * _APPLY_SECONDS, check=False
            )
        except FileNotFoundError as error:
            raise InputError("no `kubectl` on this machine; install it, or look at --dry-run") from error
        except subprocess.TimeoutExpired as error:
            raise ComputeError(f"kubectl did not answer within {2 * _APPLY_SECONDS} s; is the cluster up?") from error
        if done.returncode:
            reason = done.stderr.strip().splitlines()
            raise ComputeError(f"kubectl refused: {reason[-1] if reason else f'exit code {done.returncode}'}")
        print(done.stdout, end="")
        return 0
