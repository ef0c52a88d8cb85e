/**
 * nlctrl, the family that tells about families: answers GETFAMILY, and asks it. Payloads start at the generic
 * netlink header; who is registered is the caller's business.
 *
 * Source: include/uapi/linux/genetlink.h, net/netlink/genetlink.c, netlink-api 1.2.
 */
import {
  type Attribute,
  attributes,
  NetlinkError,
  nested,
  readString,
  readU16,
  readU32,
  Writer,
} from './attribute.ts'
import { GENL_HDRLEN, genericHeader, readGenericHeader } from './message.ts'

export const GENL_ID_CTRL = 0x10

const CTRL_CMD = { NEWFAMILY: 1, GETFAMILY: 3 } as const
const CTRL_ATTR = {
  FAMILY_ID: 1,
  FAMILY_NAME: 2,
  VERSION: 3,
  HDRSIZE: 4,
  MAXATTR: 5,
  OPS: 6,
  MCAST_GROUPS: 7,
} as const
const CTRL_ATTR_OP = { ID: 1, FLAGS: 2 } as const
const CTRL_ATTR_MCAST_GRP = { NAME: 1, ID: 2 } as const
const CTRL_VERSION = 2
/** Of a family's name, its NUL included. */
const GENL_NAMSIZ = 16

const ENOENT = 2
const EINVAL = 22
const EOPNOTSUPP = 95

export interface Family {
  readonly id: number
  readonly name: string
  readonly version: number
  readonly headerSize: number
  readonly maxAttribute: number
  /** `flags`: ADMIN_PERM 1, CAP_DO 2, CAP_DUMP 4, CAP_HASPOL 8, UNS_ADMIN_PERM 0x10. */
  readonly operations: readonly { readonly id: number; readonly flags: number }[]
  readonly groups: readonly { readonly name: string; readonly id: number }[]
}

/** nlctrl itself. The kernel's also offers GETPOLICY and announces families; this one does not. */
const control: Family = {
  id: GENL_ID_CTRL,
  name: 'nlctrl',
  version: CTRL_VERSION,
  headerSize: 0,
  maxAttribute: 0,
  operations: [{ id: CTRL_CMD.GETFAMILY, flags: 0xe }],
  groups: [{ name: 'notify', id: GENL_ID_CTRL }],
}

/**
 * Answers a request to nlctrl: the payloads of the reply, one for a do-request, one per family for a dump. A negative
 * number is the errno it is refused with.
 */
export function answerControl(
  payload: Uint8Array,
  options: { dump: boolean },
  families: readonly Family[],
): Uint8Array[] | number {
  const known = [control, ...families]
  try {
    if (readGenericHeader(payload).command !== CTRL_CMD.GETFAMILY) return -EOPNOTSUPP
    if (options.dump) return known.map(encodeFamily)
    let asked = false
    let found: Family | undefined
    for (const attribute of lenient(payload)) {
      if (attribute.type === CTRL_ATTR.FAMILY_ID) {
        const id = readU16(attribute)
        found = known.find((family) => family.id === id)
      } else if (attribute.type === CTRL_ATTR.FAMILY_NAME) {
        const nul = attribute.payload.indexOf(0)
        if (nul < 0 || nul >= GENL_NAMSIZ) return -EINVAL
        const name = readString(attribute)
        found = known.find((family) => family.name === name)
      } else {
        continue
      }
      asked = true
    }
    if (!asked) return -EINVAL
    return found === undefined ? -ENOENT : [encodeFamily(found)]
  } catch (error) {
    if (error instanceof NetlinkError) return -EINVAL
    throw error
  }
}

/** Attributes up to the first that is malformed: nlctrl has never validated strictly. */
function* lenient(payload: Uint8Array): Generator<Attribute> {
  try {
    yield* attributes(payload, GENL_HDRLEN)
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error
  }
}

/** In the kernel's order, with its nests unmarked and a group's id before its name. */
function encodeFamily(family: Family): Uint8Array {
  const unmarked = { flag: false }
  const writer = new Writer(genericHeader(CTRL_CMD.NEWFAMILY, CTRL_VERSION))
    .string(CTRL_ATTR.FAMILY_NAME, family.name)
    .u16(CTRL_ATTR.FAMILY_ID, family.id)
    .u32(CTRL_ATTR.VERSION, family.version)
    .u32(CTRL_ATTR.HDRSIZE, family.headerSize)
    .u32(CTRL_ATTR.MAXATTR, family.maxAttribute)
  const { operations, groups } = family
  if (operations.length > 0) {
    const entries = (ops: Writer) => {
      for (const [i, { id, flags }] of operations.entries()) {
        const entry = (op: Writer) => op.u32(CTRL_ATTR_OP.ID, id).u32(CTRL_ATTR_OP.FLAGS, flags)
        ops.nest(i + 1, entry, unmarked)
      }
    }
    writer.nest(CTRL_ATTR.OPS, entries, unmarked)
  }
  if (groups.length > 0) {
    const entries = (list: Writer) => {
      for (const [i, { id, name }] of groups.entries()) {
        const entry = (group: Writer) =>
          group.u32(CTRL_ATTR_MCAST_GRP.ID, id).string(CTRL_ATTR_MCAST_GRP.NAME, name)
        list.nest(i + 1, entry, unmarked)
      }
    }
    writer.nest(CTRL_ATTR.MCAST_GROUPS, entries, unmarked)
  }
  return writer.finish()
}

/** The request for the family called `name`. */
export function encodeGetFamily(name: string): Uint8Array {
  return new Writer(genericHeader(CTRL_CMD.GETFAMILY)).string(CTRL_ATTR.FAMILY_NAME, name).finish()
}

/** Reads the reply to it. Throws a NetlinkError on anything but a NEWFAMILY with an id and a name. */
export function decodeFamily(payload: Uint8Array): Family {
  const { command } = readGenericHeader(payload)
  if (command !== CTRL_CMD.NEWFAMILY) {
    throw new NetlinkError(`NEWFAMILY expected, not command ${command},`, 0)
  }
  let id: number | undefined
  let name: string | undefined
  let version = 0
  let headerSize = 0
  let maxAttribute = 0
  const operations: { id: number; flags: number }[] = []
  const groups: { name: string; id: number }[] = []
  for (const attribute of attributes(payload, GENL_HDRLEN)) {
    const { type } = attribute
    if (type === CTRL_ATTR.FAMILY_ID) id = readU16(attribute)
    else if (type === CTRL_ATTR.FAMILY_NAME) name = readString(attribute)
    else if (type === CTRL_ATTR.VERSION) version = readU32(attribute)
    else if (type === CTRL_ATTR.HDRSIZE) headerSize = readU32(attribute)
    else if (type === CTRL_ATTR.MAXATTR) maxAttribute = readU32(attribute)
    else if (type === CTRL_ATTR.OPS)
      for (const op of nested(attribute)) operations.push(decodeOp(op))
    else if (type === CTRL_ATTR.MCAST_GROUPS) {
      for (const group of nested(attribute)) groups.push(decodeGroup(group))
    }
  }
  if (id === undefined || name === undefined) {
    throw new NetlinkError('a family id and a family name expected', GENL_HDRLEN)
  }
  return { id, name, version, headerSize, maxAttribute, operations, groups }
}

function decodeOp(entry: Attribute): { id: number; flags: number } {
  const op = { id: 0, flags: 0 }
  for (const attribute of nested(entry)) {
    if (attribute.type === CTRL_ATTR_OP.ID) op.id = readU32(attribute)
    else if (attribute.type === CTRL_ATTR_OP.FLAGS) op.flags = readU32(attribute)
  }
  return op
}

function decodeGroup(entry: Attribute): { name: string; id: number } {
  const group = { name: '', id: 0 }
  for (const attribute of nested(entry)) {
    if (attribute.type === CTRL_ATTR_MCAST_GRP.NAME) group.name = readString(attribute)
    else if (attribute.type === CTRL_ATTR_MCAST_GRP.ID) group.id = readU32(attribute)
  }
  return group
}
