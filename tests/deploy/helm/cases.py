"""Values of the chart with which it is tested."""

from typing import Any

import yaml

from tests.deploy.helm.chart import EXAMPLES

Values = dict[str, Any]

DATABASE = {"existingSecret": "database"}
BASE: Values = {"ledger": DATABASE}
PEER = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
SCHEDULING: Values = {
    "priorityClassName": "high",
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    "affinity": {
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname"}}
            ]
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
        }
    ],
}
EXTRAS: Values = {
    "env": [{"name": "EXTRA", "value": "1"}],
    "envFrom": [{"secretRef": {"name": "more"}}],
    "extraVolumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
    "extraVolumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}],
    "podAnnotations": {"team": "a"},
    "podLabels": {"team": "a"},
}
EXISTING = {"database", "admin", "more", "models", "hub", "replicas", "weights", "registry"}
"""Names of Secrets and claims that the cases suppose to exist."""

CASES: dict[str, Values] = {
    "defaults": BASE,
    **{path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLES},
    "ledger URL": {"ledger": {"url": "postgresql://proctor@db/proctor"}},
    "no ledger": {
        "gateway": {"settings": {"keys": [{"name": "a", "hash": "01234567:" + "0" * 64}]}}
    },
    "no keys": {"gateway": {"settings": {"auth": {"required": False}}}},
    "migration": {
        "ledger": {**DATABASE, "migration": {"enabled": True, "existingSecret": "admin"}},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "gateway autoscaling": {
        **BASE,
        "gateway": {
            "autoscaling": {
                "enabled": True,
                "metrics": [
                    {
                        "type": "Pods",
                        "pods": {
                            "metric": {"name": "proctor_waiting"},
                            "target": {"type": "AverageValue", "averageValue": "4"},
                        },
                    }
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
            }
        },
    },
    "engine autoscaling": {
        **BASE,
        "engine": {
            "autoscaling": {
                "enabled": True,
                "prometheusAddress": "http://prometheus:9090",
                "authenticationRef": {"name": "prometheus"},
            }
        },
    },
    "no disruption budgets": {
        **BASE,
        "gateway": {"podDisruptionBudget": {"enabled": False}},
        "engine": {"podDisruptionBudget": {"enabled": False}},
    },
    "claim": {**BASE, "engine": {"cache": {"create": True, "storageClassName": "nfs"}}},
    "existing claim": {**BASE, "engine": {"cache": {"existingClaim": "weights"}}},
    "replicas elsewhere": {
        **BASE,
        "engine": {
            "enabled": False,
            "urls": ["http://a:8000", "http://b:8000"],
            "apiKey": {"existingSecret": "replicas"},
        },
        "networkPolicy": {"enabled": True},
        "monitoring": {"monitors": {"enabled": True}},
    },
    "router": {**BASE, "engine": {"urls": ["http://router-epp.models.svc:8081"]}},
    "open replicas elsewhere": {**BASE, "engine": {"enabled": False, "urls": ["http://a:8000"]}},
    "ingress": {
        **BASE,
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-buffering": "off"},
            "hosts": ["a.example", "b.example"],
            "tls": [{"hosts": ["a.example"], "secretName": "tls"}],
        },
    },
    "route": {
        **BASE,
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "ingress"}],
            "hostnames": ["a.example"],
            "annotations": {"team": "a"},
        },
    },
    "network policy": {**BASE, "networkPolicy": {"enabled": True}},
    "network policy with peers": {
        **BASE,
        "networkPolicy": {"enabled": True, "clientsFrom": [PEER], "metricsFrom": [PEER]},
    },
    "monitoring": {
        **BASE,
        "monitoring": {
            "monitors": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True, "annotations": {"grafana_folder": "Proctor"}},
        },
    },
    "scheduling": {
        **BASE,
        "gateway": SCHEDULING,
        "engine": {**SCHEDULING, "runtimeClassName": "nvidia"},
    },
    "extras": {**BASE, "gateway": EXTRAS, "engine": EXTRAS, "commonLabels": {"cost-center": "7"}},
    "gated model": {
        **BASE,
        "model": {"name": "meta-llama/Gated", "servedName": "gated"},
        "huggingFace": {"existingSecret": "hub"},
    },
    "large model": {
        **BASE,
        "engine": {
            "tensorParallelSize": 8,
            "pipelineParallelSize": 2,
            "apiKey": {"existingSecret": "replicas", "key": "token"},
            "resources": {"limits": {"memory": "1Ti", "rdma/hca": 1}},
        },
    },
    "own service account": {**BASE, "serviceAccount": {"create": False, "name": "mine"}},
    "annotated service account": {
        **BASE,
        "serviceAccount": {"annotations": {"iam.gke.io/gcp-service-account": "a@b"}},
    },
    "names": {**BASE, "fullnameOverride": "chat", "nameOverride": "inference"},
    "long names": {**BASE, "fullnameOverride": "a-very-long-name-of-a-release-" * 3},
    "load balancer": {
        **BASE,
        "gateway": {"service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}}},
    },
    "extra objects": {
        **BASE,
        "extraObjects": [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "{{ .Release.Name }}-a"},
            },
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-b\n",
        ],
    },
    "short requests": {
        **BASE,
        "gateway": {"settings": {"limits": {"max_request_seconds": 90.5}}},
    },
    "long requests": {
        **BASE,
        "gateway": {"settings": {"limits": {"max_request_seconds": 4_000_000}}, "replicas": 20},
    },
}
