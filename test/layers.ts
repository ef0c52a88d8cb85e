/** The layers of src/: which files are of which, what each may import, and which of them run in Node as well as in Bun. */

interface Layer {
  name: string
  /** Files that belong to it: path prefixes below src/. The longest prefix that fits wins. */
  paths: string[]
  /** Layers it may import, beside itself. */
  layers: string[] | 'all below'
  /** Modules from outside: null where any of Node's, Bun's or package.json's dependencies will do. */
  outside: string[] | null
  /** Whether it runs in Node too. */
  runsInNode: boolean
}

const NODE_NETWORK = ['node:events', 'node:net', 'node:timers/promises', 'node:util']

/** From the bottom up: each may name only those above it here, so there is no cycle. */
export const LAYERS: Layer[] = [
  { name: 'netlink', paths: ['netlink/'], layers: [], outside: ['ipaddr.js'], runsInNode: true },
  {
    name: 'uapi',
    paths: ['uapi/'],
    layers: ['netlink'],
    outside: ['ipaddr.js'],
    runsInNode: true,
  },
  { name: 'wire', paths: ['wire/'], layers: [], outside: ['node:crypto'], runsInNode: true },
  { name: 'platform', paths: ['platform/'], layers: [], outside: null, runsInNode: false },
  {
    name: 'driver/core',
    paths: ['driver/core/'],
    layers: ['uapi', 'wire'],
    outside: ['ipaddr.js'],
    runsInNode: true,
  },
  {
    name: "driver's client",
    paths: ['driver/channel.ts', 'driver/client.ts'],
    layers: ['netlink', 'uapi'],
    outside: NODE_NETWORK,
    runsInNode: true,
  },
  {
    name: 'driver',
    paths: ['driver/'],
    layers: ['netlink', 'uapi', 'wire', 'driver/core', "driver's client"],
    outside: null,
    runsInNode: false,
  },
  {
    name: 'driver/worker',
    paths: ['driver/worker/'],
    layers: ['uapi', 'wire', 'platform', 'driver/core', "driver's client", 'driver'],
    outside: null,
    runsInNode: false,
  },
  {
    name: 'interpose',
    paths: ['interpose/'],
    layers: ['netlink', 'uapi', 'platform', "driver's client"],
    outside: null,
    runsInNode: false,
  },
  {
    name: 'openvpn/proto',
    paths: ['openvpn/proto/'],
    layers: ['wire', 'uapi'],
    outside: ['ipaddr.js', 'node:crypto'],
    runsInNode: true,
  },
  {
    name: 'openvpn/config',
    paths: ['openvpn/config/'],
    layers: ['wire'],
    outside: ['ipaddr.js'],
    runsInNode: true,
  },
  {
    name: 'openvpn',
    paths: ['openvpn/'],
    layers: ['netlink', 'uapi', 'wire', "driver's client", 'openvpn/proto', 'openvpn/config'],
    outside: null,
    runsInNode: false,
  },
  {
    name: 'runtime',
    paths: ['runtime/'],
    layers: 'all below',
    outside: null,
    runsInNode: false,
  },
  { name: 'embed', paths: ['embed/'], layers: 'all below', outside: null, runsInNode: false },
  { name: 'web', paths: ['web/'], layers: 'all below', outside: null, runsInNode: false },
  { name: 'cli', paths: ['cli/'], layers: 'all below', outside: null, runsInNode: false },
  {
    name: 'the package',
    paths: ['index.ts', 'node.ts', 'driver-client.ts', 'driver.ts'],
    layers: 'all below',
    outside: null,
    runsInNode: false,
  },
]

/** The layer of a source file, by its path from the checkout's top. */
export function layerOf(path: string): Layer | undefined {
  let best: Layer | undefined
  let longest = 0
  for (const layer of LAYERS) {
    for (const prefix of layer.paths) {
      if (!path.startsWith(`src/${prefix}`) || prefix.length <= longest) continue
      best = layer
      longest = prefix.length
    }
  }
  return best
}
