"""Checks lines of OCSF against the published schema, with the profiles that each line declares.

    pip install --requirement tests/ocsf/requirements.txt
    python tests/ocsf/check.py tests/ocsf/events.ndjson …
"""

import functools
import json
import pathlib
import re
import sys

import jsonschema
import ocsf_json_schema
from ocsf_json_schema.embedded import OcsfJsonSchemaEmbedded
from ocsf_json_schema.loader import get_ocsf_schema


@functools.cache
def schema(version):
    return get_ocsf_schema(version)


@functools.cache
def validator(version, class_uid, profiles):
    classes = OcsfJsonSchemaEmbedded(schema(version))
    name = classes.lookup_class_name_from_uid(class_uid)
    return jsonschema.Draft202012Validator(classes.get_class_schema(name, list(profiles)))


def problems(event):
    """What the JSON Schema says, and what it cannot say of sums and names."""
    metadata = event["metadata"]
    version, class_uid, activity = metadata["version"], event["class_uid"], event["activity_id"]
    for error in validator(version, class_uid, tuple(metadata.get("profiles", ()))).iter_errors(event):
        yield f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}"
    if event["type_uid"] != class_uid * 100 + activity:
        yield f"type_uid: {event['type_uid']} is not {class_uid} * 100 + {activity}"
    (known,) = (known for known in schema(version)["classes"].values() if known["uid"] == class_uid)
    activities = known["attributes"]["activity_id"]["enum"]
    if str(activity) not in activities:
        yield f"activity_id: {known['caption']} has no activity {activity}"
    elif activity not in (0, 99) and event["activity_name"] != activities[str(activity)]["caption"]:
        yield f"activity_name: {activity} is {activities[str(activity)]['caption']}, not {event['activity_name']}"
    if event["class_name"] != known["caption"]:
        yield f"class_name: {class_uid} is {known['caption']}"


def main():
    found, lines = 0, 0
    for file in sys.argv[1:]:
        for number, line in enumerate(pathlib.Path(file).read_text(encoding="utf-8").splitlines(), 1):
            lines += 1
            for problem in problems(json.loads(line)):
                found += 1
                print(f"{file}: line {number}: {problem}")
    print(f"{lines} lines, {found} problems")
    sys.exit(1 if found or not lines else 0)


if __name__ == "__main__":
    main()
