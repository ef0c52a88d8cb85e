/** Owns the network that is measured in: two namespaces and a veth pair between them, with iperf3's place at both ends. */
import { run, start, until } from './process.ts'

/** One side: a network namespace and its address on the wire. */
export interface End {
  readonly netns: string
  readonly address: string
}

export interface Topology {
  /** Where clients run. */
  readonly near: End
  /** Where servers run. */
  readonly far: End
  /** Kills every process in it. */
  endProcesses(): Promise<void>
  /** Removes it all, with its processes. */
  remove(): Promise<void>
}

/** In RFC 2544's range for benchmarks of networks. */
const NEAR_ADDRESS = '198.18.0.1'
const FAR_ADDRESS = '198.18.0.2'

/** Makes the namespaces `ovbench<pid>a` and `ovbench<pid>b`. Needs root. MTU is 1500; offloads are as veth has them. */
export async function createTopology(): Promise<Topology> {
  const near = { netns: `ovbench${process.pid}a`, address: NEAR_ADDRESS }
  const far = { netns: `ovbench${process.pid}b`, address: FAR_ADDRESS }
  const endProcesses = async () => {
    for (const { netns } of [near, far]) {
      const pids = await run(['ip', 'netns', 'pids', netns]).catch(() => '')
      for (const pid of pids.split('\n').filter((line) => line !== '')) kill(Number(pid))
    }
  }
  const remove = async () => {
    await endProcesses()
    for (const { netns } of [near, far]) {
      await run(['ip', 'netns', 'del', netns]).catch(() => {}) // not made yet, or gone already
    }
  }
  try {
    for (const { netns } of [near, far]) {
      await run(['ip', 'netns', 'add', netns])
      await run(['ip', '-n', netns, 'link', 'set', 'lo', 'up'])
    }
    const peer = ['peer', 'name', 'wire', 'netns', far.netns]
    await run([
      'ip',
      '-n',
      near.netns,
      'link',
      'add',
      'wire',
      'mtu',
      '1500',
      'type',
      'veth',
      ...peer,
    ])
    for (const { netns, address } of [near, far]) {
      await run(['ip', '-n', netns, 'address', 'add', `${address}/30`, 'dev', 'wire'])
      await run(['ip', '-n', netns, 'link', 'set', 'wire', 'mtu', '1500', 'up'])
    }
    await until('the wire', () => reaches(near.netns, far.address), [])
  } catch (error) {
    await remove()
    throw error
  }
  return { near, far, endProcesses, remove }
}

/** `command` as it is run in a namespace. */
export function inside(netns: string, command: string[]): string[] {
  return ['ip', 'netns', 'exec', netns, ...command]
}

/** Starts a program in a namespace. Its pid is the program's own: `ip netns exec` becomes it. */
export function startInside(
  netns: string,
  command: string[],
  environment?: Record<string, string>,
) {
  return start(inside(netns, command), environment)
}

/** Whether one ping to `address` is answered. */
export async function reaches(netns: string, address: string): Promise<boolean> {
  try {
    await run(inside(netns, ['ping', '-n', '-q', '-c', '1', '-W', '1', address]))
    return true
  } catch {
    return false
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // Gone already.
  }
}
