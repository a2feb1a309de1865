// Validates custom resources: reads a JSON list of objects, writes the list of each one's problems.
import { readFileSync } from "node:fs";

import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1";
import {
  PodMonitor,
  PrometheusRule,
  ServiceMonitor,
} from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1";

const MODELS = [HTTPRoute, PodMonitor, PrometheusRule, ScaledObject, ServiceMonitor];

function problemOf(Model, object) {
  try {
    new Model(object).validate();
    return null;
  } catch (error) {
    return error.message;
  }
}

function* paths(value, path = []) {
  if (path.length > 0) yield path;
  if (value === null || typeof value !== "object") return;
  for (const key of Object.keys(value)) yield* paths(value[key], [...path, key]);
}

function withOtherType(object, path) {
  const copy = structuredClone(object);
  const last = path.at(-1);
  const parent = path.slice(0, -1).reduce((value, key) => value[key], copy);
  parent[last] = typeof parent[last] === "object" ? "text" : {};
  return copy;
}

// The schemas allow unknown fields, which the API server drops. A field is known if the schema
// rejects it with a value of another type.
function unknownFields(Model, object) {
  return [...paths(object)]
    .filter((path) => problemOf(Model, withOtherType(object, path)) === null)
    .map((path) => `unknown field ${path.join(".")}`);
}

function problems(object) {
  const Model = MODELS.find(
    ({ apiVersion, kind }) => apiVersion === object.apiVersion && kind === object.kind,
  );
  if (Model === undefined) return [`no schema of ${object.apiVersion} ${object.kind}`];
  const problem = problemOf(Model, object);
  return problem === null ? unknownFields(Model, object) : [problem];
}

const objects = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(objects.map(problems)));
