"""What a W&B server keeps, and its answers to the GraphQL operations of wandb 0.31: enough of both for tests."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

ENTITY = "someone"
NOW = "2026-01-01T00:00:00"

Answer = dict[str, Any]


@dataclass
class ServerRun:
    """A run as the server has it."""

    name: str
    project: str
    attributes: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    streams: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None
    beginnings: int = 0
    stopped: bool = False

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, a dictionary a step."""
        return [json.loads(line) for line in self.streams.get("wandb-history.jsonl", [])]

    @property
    def summary(self) -> dict[str, Any]:
        """Last or best values."""
        lines = self.streams.get("wandb-summary.json", ["{}"])
        summary: dict[str, Any] = json.loads(lines[-1])
        return summary

    def values(self, key: str) -> list[Any]:
        """The logged values of one key."""
        return [line[key] for line in self.history if key in line]

    def stream(self, chunk: dict[str, Any]) -> None:
        """Take one request of the file stream: lines from an offset on, and the end of the run."""
        for name, part in chunk.get("files", {}).items():
            lines = self.streams.setdefault(name, [])
            lines[part["offset"] :] = part["content"]
        if chunk.get("complete"):
            self.exit_code = chunk.get("exitcode")


@dataclass
class ServerSweep:
    """A sweep whose trials are all points of its lists of values and the ends of its intervals."""

    name: str
    config: dict[str, Any]
    state: str = "RUNNING"
    points: Iterator[dict[str, Any]] = field(default_factory=lambda: iter(()))
    trials: list[str] = field(default_factory=list)

    def next_trial(self) -> Answer | None:
        """The agent's command for the next trial, None where there is none left."""
        point = next(self.points, None)
        if point is None:
            return None
        self.trials.append(f"{self.name}t{len(self.trials)}")
        arguments = {name: {"value": value} for name, value in point.items()}
        program = self.config.get("program")
        return {"type": "run", "run_id": self.trials[-1], "args": arguments, "program": program}


def sweep_points(parameters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All points of a sweep's parameters."""
    choices = []
    for parameter in parameters.values():
        if "value" in parameter:
            choices.append([parameter["value"]])
        else:
            choices.append(parameter.get("values") or [parameter["min"], parameter["max"]])
    for point in itertools.product(*choices):
        yield dict(zip(parameters, point, strict=True))


class Backend:
    """The state of the server and its GraphQL operations, one method each: ``answer_name_of_the_operation``."""

    def __init__(self) -> None:
        self.url = ""
        self.runs: dict[str, ServerRun] = {}
        self.sweeps: dict[str, ServerSweep] = {}
        self.agents: dict[str, tuple[ServerSweep, list[str]]] = {}
        self.artifacts: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        self.storage: dict[str, bytes] = {}

    def _upload(self, path: str) -> Answer:
        return {"uploadUrl": f"{self.url}/storage/{path}", "uploadHeaders": [], "storagePath": path, "id": path}

    def project(self, name: str | None) -> Answer:
        """A project, which exists as soon as somebody asks for it."""
        entity = {"id": "entity", "name": ENTITY}
        facts = {"entityName": ENTITY, "createdAt": NOW, "isBenchmark": False, "user": None, "internalId": "1"}
        return {"__typename": "Project", "id": f"id-{name}", "name": name, "entity": entity, **facts}

    # --- the account and the server

    def answer_viewer(self, _: Answer) -> Answer:
        flags = {"flags": "{}", "admin": False, "deletedAt": None}
        lists = {"teams": {"edges": []}, "apiKeys": {"edges": []}}
        return {
            "viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "name": ENTITY, "email": "", **flags, **lists}
        }

    answer_get_viewer = answer_get_default_entity = answer_viewer

    def answer_server_info(self, _: Answer) -> Answer:
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "9.0.0"}, "latestLocalVersionInfo": None}}

    def answer_server_features_query(self, _: Answer) -> Answer:
        return {"serverInfo": {"features": []}}

    def answer_organization_core_weave_organization_id(self, _: Answer) -> Answer:
        return {"entity": {"organization": None}}

    def answer_get_projects(self, _: Answer) -> Answer:
        edges = [{"node": self.project(name)} for name in sorted({run.project for run in self.runs.values()})]
        return {
            "models": {"pageInfo": {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}, "edges": edges}
        }

    def answer_create_project(self, variables: Answer) -> Answer:
        project = self.project(variables["input"]["name"])
        facts = {"description": None, "access": None, "views": None}
        return {"result": {"project": project | facts, "model": None, "inserted": True}}

    def answer_project_internal_id(self, variables: Answer) -> Answer:
        return {"project": self.project(variables["projectName"])}

    # --- runs

    def answer_upsert_bucket(self, variables: Answer) -> Answer:
        name, inserted = variables["name"], variables["name"] not in self.runs
        run = self.runs.setdefault(name, ServerRun(name, variables["project"]))
        given = {key: value for key, value in variables.items() if value is not None}
        run.config |= json.loads(given.pop("config", "{}"))
        run.attributes |= given
        run.exit_code = None
        return {"upsertBucket": {"bucket": self._bucket(run), "inserted": inserted}}

    def _bucket(self, run: ServerRun) -> Answer:
        lines = {name: run.streams.get(f"wandb-{name}.jsonl", []) for name in ("history", "events")}
        return {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.attributes.get("displayName", run.name),
            "description": None,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "sweepName": run.attributes.get("sweep"),
            "project": self.project(run.project),
            "historyLineCount": len(lines["history"]),
            "eventsLineCount": len(lines["events"]),
            "logLineCount": len(run.streams.get("output.log", [])),
            "historyTail": json.dumps(lines["history"][-1:]),
            "eventsTail": json.dumps(lines["events"][-1:]),
            "tags": run.attributes.get("tags"),
            "notes": run.attributes.get("notes"),
            "wandbConfig": json.dumps({"t": 1}),
        }

    def answer_run_resume_status(self, variables: Answer) -> Answer:
        run = self.runs.get(variables["name"])
        bucket = None if run is None else self._bucket(run)
        return {"model": {**self.project(variables["project"]), "bucket": bucket}}

    def answer_run_stopped_status(self, variables: Answer) -> Answer:
        run = self.runs.get(variables["runId"])
        return {"project": {"run": {"stopped": run is not None and run.stopped}}}

    def answer_query_run_info(self, variables: Answer) -> Answer:
        return {"project": {"run": self._bucket(self.runs[variables["run"]])}}

    def answer_create_run_files(self, variables: Answer) -> Answer:
        folder = f"runs/{variables['run']}"
        files = [{"name": name, **self._upload(f"{folder}/{name}")} for name in variables["files"]]
        return {"createRunFiles": {"runID": f"id-{variables['run']}", "uploadHeaders": [], "files": files}}

    def answer_mark_run_files_uploaded(self, _: Answer) -> Answer:
        return {"markRunFilesUploaded": {"success": True}}

    # --- artifacts

    def answer_create_artifact(self, variables: Answer) -> Answer:
        given = variables["input"]
        name = f"artifact{len(self.artifacts)}"
        self.artifacts[name] = {**given, "state": "PENDING"}
        artifact = {"id": name, "state": "PENDING", "artifactSequence": {"id": f"s-{name}", "latestArtifact": None}}
        return {"createArtifact": {"artifact": artifact}}

    def answer_artifact_type(self, _: Answer) -> Answer:
        return {"project": {"artifact": None}}

    def answer_create_artifact_manifest(self, variables: Answer) -> Answer:
        name = variables["artifactID"]
        file = self._upload(f"artifacts/{name}/{variables['name']}")
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def answer_update_artifact_manifest(self, variables: Answer) -> Answer:
        name = variables["artifactManifestID"]
        file = self._upload(f"artifacts/{name}/wandb_manifest.json")
        return {"updateArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    def answer_create_artifact_files(self, variables: Answer) -> Answer:
        edges = []
        for file in variables["input"]["artifactFiles"]:
            path = f"artifacts/{file['artifactID']}/{file['name']}"
            nothing = {"uploadMultipartUrls": None, "artifact": {"id": file["artifactID"]}}
            edges.append({"node": {**self._upload(path), **nothing}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def answer_commit_artifact(self, variables: Answer) -> Answer:
        artifact = self.artifacts[variables["artifactID"]]
        artifact["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": artifact["digest"]}}}

    def answer_use_artifact(self, variables: Answer) -> Answer:
        return {"useArtifact": {"artifact": {"id": variables["input"]["artifactID"]}}}

    # --- sweeps and their agents

    def answer_upsert_sweep(self, variables: Answer) -> Answer:
        config = yaml.safe_load(variables["config"])
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = ServerSweep(name, config, points=sweep_points(config["parameters"]))
        sweep = {"name": name, "project": self.project(variables["projectName"])}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def answer_sweep_with_runs(self, variables: Answer) -> Answer:
        sweep = self.sweeps.get(variables["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        facts = {"id": sweep.name, "name": sweep.name, "state": sweep.state, "controller": None, "scheduler": None}
        return {"project": {"sweep": {**facts, "config": yaml.safe_dump(sweep.config), "runs": {"edges": []}}}}

    def answer_create_agent(self, variables: Answer) -> Answer:
        name = f"agent{len(self.agents)}"
        self.agents[name] = (self.sweeps[variables["sweep"]], [])
        return {"createAgent": {"agent": {"id": name}}}

    def answer_heartbeat(self, variables: Answer) -> Answer:
        sweep, _ = self.agents[variables["id"]]
        busy = json.loads(variables["runState"] or "{}")
        commands = []
        if not busy:
            commands = [sweep.next_trial() or {"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": variables["id"]}, "commands": json.dumps(commands)}}

    # --- workspaces and reports

    def answer_upsert_view(self, variables: Answer) -> Answer:
        inserted = not variables.get("id")
        name = variables.get("id") or f"view{len(self.views)}"
        keys = ("type", "name", "displayName", "description", "spec")
        view = {"id": name, "project": self.project(variables["projectName"]), "updatedAt": NOW, "createdAt": NOW}
        self.views[name] = view | {key: variables.get(key) for key in keys}
        return {"upsertView": {"view": self.views[name], "inserted": inserted}}

    answer_upsert_view2 = answer_upsert_view

    def answer_view(self, variables: Answer) -> Answer:
        found = [view for view in self.views.values() if view["name"] == variables["viewName"]]
        return {"project": {"allViews": {"edges": [{"node": view} for view in found]}}}
