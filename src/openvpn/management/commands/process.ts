/** Commands about the process, whatever its role: versions, log, states, hold, status, counters, signals. */
import { type Command, type Commands, INTERFACE_VERSION, ok, whole } from '../command.ts'
import type { Connection } from '../connection.ts'
import { echoText, type Histories, type History, logText, stateText } from '../history.ts'
import { type StatusVersion, statusLines } from '../status.ts'

/** Clients that speak this version or a later one are answered when they say so. */
const ANSWERED_VERSION = 4

const SIGNALS = ['SIGHUP', 'SIGTERM', 'SIGUSR1', 'SIGUSR2'] as const

/** Of servers and clients. */
export const PROCESS: Commands = {
  version: {
    args: [0, 1],
    help: 'version [n]: tell the versions, or what version this client speaks',
    run: ({ target }, [number]) =>
      number === undefined
        ? [`OpenVPN Version: ${target.title}`, `Management Version: ${INTERFACE_VERSION}`, 'END']
        : // Older clients do not expect an answer.
          whole(number, 1, 1000) < ANSWERED_VERSION
          ? undefined
          : ok(`Management client version set to ${number}`),
  },
  pid: {
    args: [0, 0],
    help: 'pid: tell the process id',
    run: ({ target }) => ok(`pid=${target.pid}`),
  },
  exit: {
    args: [0, 0],
    help: 'exit|quit: close this connection',
    run: ({ connection }) => end(connection),
  },
  quit: { args: [0, 0], help: 'quit: the same', run: ({ connection }) => end(connection) },
  log: realtime('log', ({ log }) => log, logText),
  state: realtime('state', ({ states }) => states, stateText),
  echo: realtime('echo', ({ echoes }) => echoes, echoText),
  hold: {
    args: [0, 1],
    help: 'hold [on|off|release]: whether a start waits, and end the waiting',
    run({ management }, [what]) {
      if (what === undefined) return ok(`hold=${management.holding ? 1 : 0}`)
      if (what === 'release') {
        management.release()
        return ok('hold release succeeded')
      }
      if (what !== 'on' && what !== 'off') throw new Error('bad hold command parameter')
      management.holding = what === 'on'
      return ok(`hold flag set to ${what.toUpperCase()}`)
    },
  },
  status: {
    args: [0, 1],
    help: 'status [1|2|3]: who is connected',
    async run({ target }, [version = `${target.statusVersion ?? 1}`]) {
      if (!/^[123]$/.test(version)) throw new Error('bad status format version number')
      const form = Number(version) as StatusVersion
      const status = await target.status()
      if (status !== undefined) return statusLines(status, form)
      const statistics = (await target.statistics?.()) ?? []
      return ['OpenVPN STATISTICS', ...statistics.map((pair) => pair.join(',')), 'END']
    },
  },
  'load-stats': {
    args: [0, 0],
    help: 'load-stats: how many clients, and bytes of all',
    async run({ target }) {
      const { clients, bytesIn, bytesOut } = await target.load()
      return ok(`nclients=${clients},bytesin=${bytesIn},bytesout=${bytesOut}`)
    },
  },
  bytecount: {
    args: [1, 1],
    help: 'bytecount n: tell bytes every n seconds; 0 ends it',
    run({ connection }, [seconds]) {
      connection.reportBytes(whole(seconds!, 0, 86_400))
      return ok('bytecount interval changed')
    },
  },
  'env-filter': {
    args: [0, 1],
    help: 'env-filter [level]: variables to be told: 0 all, 1 few and those of certificates, 2 few, 3 none',
    run({ connection }, [level = '0']) {
      // What is no number is 0, as in OpenVPN.
      connection.envFilter = Number.parseInt(level, 10) || 0
      return ok(`env_filter_level=${connection.envFilter}`)
    },
  },
  signal: {
    args: [1, 1],
    help: 'signal SIGHUP|SIGTERM|SIGUSR1|SIGUSR2: as if the process had got it',
    run({ target }, [name]) {
      if (!isSignal(name!)) throw new Error(`signal '${name}' is not a known signal type`)
      target.signal(name)
      return ok(`signal ${name} thrown`)
    },
  },
  verb: {
    args: [0, 1],
    help: 'verb [n]: how much is logged',
    run({ target }, [level]) {
      if (level === undefined) return ok(`verb=${target.verbosity}`)
      target.verbosity = whole(level, 0, 15)
      return ok('verb level changed')
    },
  },
  mute: {
    args: [0, 1],
    help: 'mute [n]: messages of one kind in a row that are told; 0 for all',
    run({ target }, [count]) {
      if (count === undefined) return ok(`mute=${target.mute}`)
      target.mute = whole(count, 0, 0x7fffffff)
      return ok('mute level changed')
    },
  },
}

function realtime<T>(
  name: 'log' | 'state' | 'echo',
  historyOf: (histories: Histories) => History<T>,
  textOf: (entry: T) => string,
): Command {
  return {
    args: [name === 'state' ? 0 : 1, 2],
    help: `${name} [on|off] [n|all]: what was, and whether to be told of more`,
    run({ connection, management }, args) {
      const words = [...args]
      const history = historyOf(management.histories)
      let told: string | undefined
      if (words[0] === 'on' || words[0] === 'off') {
        const wanted = words.shift() === 'on'
        connection.wants[name] = wanted
        told = ok(`real-time ${name} notification set to ${wanted ? 'ON' : 'OFF'}`)
        if (words.length === 0) return told
      }
      const [count] = words
      // Without a number, `state` tells the present one, and the others all.
      const number =
        count === undefined && name === 'state'
          ? 1
          : count === undefined || count === 'all'
            ? Infinity
            : Number(count)
      if (!(number >= 1)) {
        throw new Error(`${name} parameter must be 'on' or 'off' or some number n or 'all'`)
      }
      const lines = [...history.last(number).map(textOf), 'END']
      return told === undefined ? lines : [told, ...lines]
    },
  }
}

function end(connection: Connection): undefined {
  connection.end()
}

function isSignal(name: string): name is (typeof SIGNALS)[number] {
  return (SIGNALS as readonly string[]).includes(name)
}
