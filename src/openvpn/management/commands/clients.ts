/** Commands about a server's clients: who may come, who has to go, what they are pushed. */
import { type Commands, done, ok, unsupported, whole } from '../command.ts'
import type { ManagedClients, ManagementTarget } from '../target.ts'

/** Of servers. */
export const CLIENTS: Commands = {
  kill: {
    args: [1, 1],
    help: 'kill cn|[protocol:]address:port: end connections of clients',
    run({ target }, [which]) {
      const count = clientsOf(target, 'kill').kill(which!)
      const isAddress = /:\d+$/.test(which!)
      if (count === 0) {
        throw new Error(
          isAddress ? `client at address ${which} not found` : `common name '${which}' not found`,
        )
      }
      return ok(
        isAddress
          ? `${count} client(s) at address ${which} killed`
          : `common name '${which}' found, ${count} client(s) killed`,
      )
    },
  },
  'client-auth': {
    args: [2, 2],
    help: 'client-auth CID KID: accept; configuration lines follow, then END',
    run({ connection, target }, [cid, kid]) {
      const clients = clientsOf(target, 'client-auth')
      const [id, keyId] = [clientId(cid!), keyIdOf(kid!)]
      connection.collect((lines) => done(clients.authorize(id, keyId, lines), 'client-auth'))
      return undefined
    },
  },
  'client-auth-nt': {
    args: [2, 2],
    help: 'client-auth-nt CID KID: accept, without configuration',
    run: ({ target }, [cid, kid]) =>
      done(
        clientsOf(target, 'client-auth').authorize(clientId(cid!), keyIdOf(kid!), []),
        'client-auth',
      ),
  },
  'client-deny': {
    args: [3, 4],
    help: 'client-deny CID KID reason [client-reason]: refuse',
    run: ({ target }, [cid, kid, reason, clientReason]) =>
      done(
        clientsOf(target, 'client-deny').deny(clientId(cid!), keyIdOf(kid!), reason!, clientReason),
        'client-deny',
      ),
  },
  'client-pending-auth': {
    args: [4, 4],
    help: 'client-pending-auth CID KID extra timeout: ask the client for more',
    run({ target }, [cid, kid, extra, timeout]) {
      const clients = clientsOf(target, 'client-pending-auth')
      const [id, keyId] = [clientId(cid!), keyIdOf(kid!)]
      return done(
        clients.pend(id, keyId, extra!, whole(timeout!, 1, 86_400)),
        'client-pending-auth',
        '. Extra parameter might be too long',
      )
    },
  },
  'client-kill': {
    args: [1, 2],
    help: 'client-kill CID [message]: end its connection; RESTART is sent unless told',
    run: ({ target }, [cid, message = 'RESTART']) =>
      done(clientsOf(target, 'client-kill').killOne(clientId(cid!), message), 'client-kill'),
  },
  'push-update-broad': {
    args: [1, 1],
    help: 'push-update-broad "options": change pushed options of all clients',
    run({ target }, [options]) {
      const count = clientsOf(target, 'push-update-broad').update(undefined, options!)
      return ok(`push-update command succeeded: ${count} client(s)`)
    },
  },
  'push-update-cid': {
    args: [2, 2],
    help: 'push-update-cid CID "options": change pushed options of a client',
    run: ({ target }, [cid, options]) =>
      done(
        clientsOf(target, 'push-update-cid').update(clientId(cid!), options!) > 0,
        'push-update',
      ),
  },
}

function clientsOf({ clients }: ManagementTarget, command: string): ManagedClients {
  if (clients === undefined) throw unsupported(command)
  return clients
}

const clientId = (text: string): number => idOf(text, 'CID')
const keyIdOf = (text: string): number => idOf(text, 'KID')

function idOf(text: string, what: string): number {
  if (!/^\d{1,10}$/.test(text)) throw new Error(`cannot parse ${what}`)
  return Number(text)
}
