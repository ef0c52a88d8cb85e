/**
 * A bad network, as a program: `bun relay.ts PORT ADDRESS TARGET_PORT LOSS`. Takes UDP at 127.0.0.1:PORT and passes it on to
 * ADDRESS, and what comes back, each sender with a socket of its own; LOSS percent are lost in each direction, a quarter overtakes
 * those before. SIGUSR1: all are heard from another port from then on, as behind a router that was started anew. SIGUSR2: packets of
 * key exchanges but the first are lost from then on, and not any more after the next.
 */
import { createSocket, type Socket } from 'node:dgram'
import { keyIdOf, Opcode, opcodeOf } from '../../src/wire/opcode.ts'
import { Random } from '../random.ts'

const [port = '', address = '', targetPort = '', loss = ''] = process.argv.slice(2)
const SEED = 5
const DELAY_MS = 10

const random = new Random(SEED)
const outside = new Map<string, Socket>()
const family = address.includes(':') ? 'udp6' : 'udp4'
const inside = createSocket('udp4')

let losesRenewals = false

/** A control packet of a later key id: no wrap hides the first byte. */
function isRenewal(packet: Uint8Array): boolean {
  return !isData(opcodeOf(packet[0]!)) && keyIdOf(packet[0]!) > 0
}

function isData(opcode: number): boolean {
  return opcode === Opcode.DataV1 || opcode === Opcode.DataV2
}

function pass(packet: Uint8Array, send: () => void): void {
  if (losesRenewals && isRenewal(packet)) return
  if (random.below(100) < Number(loss)) return
  if (random.below(4) === 0) send()
  else setTimeout(send, DELAY_MS)
}

function open(senderPort: number): Socket {
  const socket = createSocket(family)
  socket.on('message', (packet) => {
    if (outside.get(`${senderPort}`) !== socket) return // the port that it was heard from before
    pass(packet, () => inside.send(packet, senderPort, '127.0.0.1'))
  })
  outside.set(`${senderPort}`, socket)
  return socket
}

inside.on('message', (packet, { port: senderPort }) => {
  const socket = outside.get(`${senderPort}`) ?? open(senderPort)
  pass(packet, () => socket.send(packet, Number(targetPort), address))
})
process.on('SIGUSR1', () => {
  outside.clear()
  console.log('moved')
})
process.on('SIGUSR2', () => {
  losesRenewals = !losesRenewals
  console.log(losesRenewals ? 'no renewals' : 'renewals')
})
inside.bind(Number(port), '127.0.0.1', () => console.log('relaying'))
