#!/usr/bin/python3
"""What is so in a namespace of a pool (`rbd`), as Ceph's own bindings say it; nothing of bmid's takes part. It reads, and makes the
namespaces that tests ask for. It must never change anything in them but what `open` is there for.

  pool.py CONF [POOL]   answers lines of standard input, a line of JSON each:
    make NAMESPACE   the namespace is there, and one beside it for a second datastore
    look [NAMESPACE] images, trash, register, and objects that belong to no image, of both
    open NAMESPACE   disks that are locked and watched by nobody are opened as by whoever needs them next: which, and who still is locked
"""
import json
import re
import sys

import rados
import rbd

REGISTER = "bmid.register"


def register(io):
    with rados.ReadOpCtx() as op:
        entries, _ = io.get_omap_vals(op, "", "", 100_000)
        io.operate_read_op(op, REGISTER)
        return {key: json.loads(value) for key, value in entries}


def about(io, **which):
    """An image; one that cannot be opened is `broken`. Opened to be read, it gets no watch of ours."""
    try:
        with rbd.Image(io, read_only=True, **which) as image:
            snaps = list(image.list_snaps())
            try:
                mark = json.loads(image.metadata_get("bmid"))
            except KeyError:
                mark = None
            try:
                parent = image.parent_id()
            except rbd.ImageNotFound:
                parent = None
            return {
                "id": image.id(),
                "size": image.size(),
                "mark": mark,
                "parent": parent,
                "snaps": sorted(s["name"] for s in snaps if s["namespace"] == rbd.RBD_SNAP_NAMESPACE_TYPE_USER),
                "kept_snaps": sum(s["namespace"] != rbd.RBD_SNAP_NAMESPACE_TYPE_USER for s in snaps),
                "children": sorted(c["id"] for c in image.list_children2()),
                "watchers": len(list(image.watchers_list())),
                "lockers": len((image.list_lockers() or {"lockers": []})["lockers"]),
            }
    except rbd.ImageNotFound:
        return {"broken": True}


def strays(io, ids, names):
    """Objects of images that are neither listed nor in the trash, and names that are not listed."""
    found = []
    for o in io.list_objects():
        of = re.match(r"rbd_(?:data|header|object_map)\.([0-9a-f]+)", o.key)
        named = re.match(r"rbd_id\.(.*)", o.key)
        if (of and of.group(1) not in ids) or (named and named.group(1) not in names):
            found.append(o.key)
    return sorted(found)


def look(io):
    tool = rbd.RBD()
    for _ in range(50):
        listed = sorted((i["name"], i["id"]) for i in tool.list2(io))
        trash = list(tool.trash_list(io))
        images = {name: {"id": id, **about(io, image_id=id)} for name, id in listed}
        trashed = [{**about(io, image_id=t["id"]), "name": t["name"], "id": t["id"]} for t in trash]
        try:
            entries = register(io)
        except rados.ObjectNotFound:
            entries = {}
        ids = {i["id"] for i in [*images.values(), *trashed]}
        lost = strays(io, ids, set(images))
        # What runs in the background may have moved something between two questions.
        if sorted((i["name"], i["id"]) for i in tool.list2(io)) == listed and [t["id"] for t in tool.trash_list(io)] == [t["id"] for t in trash]:
            break
    return images, trashed, entries, lost


def reopen(io):
    """A lock that a dead process left goes when the next one takes it; what stays has an owner, or is a fault."""
    opened, left = [], []
    for name in sorted(rbd.RBD().list(io)):
        of = about(io, name=name)
        if not of.get("lockers") or of["watchers"]:
            continue
        with rbd.Image(io, name) as image:
            image.lock_acquire(rbd.RBD_LOCK_MODE_EXCLUSIVE)
        opened.append(name)
        if about(io, name=name)["lockers"]:
            left.append(name)
    return {"opened": opened, "left": left}


def both(namespace):
    return [namespace, namespace + "-fast"] if namespace else [""]


def main():
    cluster = rados.Rados(conffile=sys.argv[1])
    cluster.connect()
    io = cluster.open_ioctx(sys.argv[2] if len(sys.argv) > 2 else "rbd")
    for line in sys.stdin:
        verb, namespace = (line.split() + [""])[:2]
        if verb == "make":
            io.set_namespace("")
            for name in both(namespace):
                rbd.RBD().namespace_create(io, name)
            answer = {}
        elif verb == "open":
            answer = {"opened": [], "left": []}
            for name in both(namespace):
                io.set_namespace(name)
                for key, names in reopen(io).items():
                    answer[key] += names
        else:
            answer = {"images": {}, "trash": [], "register": {}, "strays": [], "stores": {}}
            for name in both(namespace):
                io.set_namespace(name)
                images, trash, entries, lost = look(io)
                answer["images"].update(images)
                answer["trash"] += trash
                answer["register"].update(entries)
                answer["strays"] += lost
                answer["stores"].update({key[6:]: name for key in entries if key.startswith("store.")})
        print(json.dumps(answer), flush=True)


main()
