/**
 * A bad network, as a program: `bun relay.ts PORT ADDRESS TARGET_PORT LOSS`. Takes UDP at 127.0.0.1:PORT and passes it on to
 * ADDRESS, and what comes back, each sender with a socket of its own; LOSS percent are lost in each direction, a quarter overtakes
 * those before. SIGUSR1: all are heard from another port from then on, as behind a router that was started anew.
 */
import { createSocket, type Socket } from 'node:dgram'
import { Random } from '../random.ts'

const [port = '', address = '', targetPort = '', loss = ''] = process.argv.slice(2)
const SEED = 5
const DELAY_MS = 10

const random = new Random(SEED)
const outside = new Map<string, Socket>()
const family = address.includes(':') ? 'udp6' : 'udp4'
const inside = createSocket('udp4')

function pass(send: () => void): void {
  if (random.below(100) < Number(loss)) return
  if (random.below(4) === 0) send()
  else setTimeout(send, DELAY_MS)
}

function open(senderPort: number): Socket {
  const socket = createSocket(family)
  socket.on('message', (packet) => {
    if (outside.get(`${senderPort}`) !== socket) return // the port that it was heard from before
    pass(() => inside.send(packet, senderPort, '127.0.0.1'))
  })
  outside.set(`${senderPort}`, socket)
  return socket
}

inside.on('message', (packet, { port: senderPort }) => {
  const socket = outside.get(`${senderPort}`) ?? open(senderPort)
  pass(() => socket.send(packet, Number(targetPort), address))
})
process.on('SIGUSR1', () => {
  outside.clear()
  console.log('moved')
})
inside.bind(Number(port), '127.0.0.1', () => console.log('relaying'))
