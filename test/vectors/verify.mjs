// Second implementation: recomputes the vectors with node:crypto only. Usage: node verify.mjs
import crypto from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const dir = path.dirname(fileURLToPath(import.meta.url))
const load = (f) => JSON.parse(fs.readFileSync(path.join(dir, f), 'utf8'))
const X = (h) => Buffer.from(h, 'hex')
let n = 0
const eq = (what, got, want) => {
  const g = Buffer.isBuffer(got) ? got.toString('hex') : got
  if (g !== want) throw new Error(`${what}\n got  ${g}\n want ${want}`)
  n++
}
const hmac = (alg, key, ...parts) =>
  parts.reduce((h, p) => h.update(p), crypto.createHmac(alg, key)).digest()
const u = (v, bytes) => {
  const b = Buffer.alloc(bytes)
  b.writeUIntBE(v, 0, bytes)
  return b
}
const expand = (prk, info, len) => {
  let out = Buffer.alloc(0),
    t = Buffer.alloc(0)
  for (let i = 1; out.length < len; i++) {
    t = hmac('sha256', prk, t, info, Buffer.from([i]))
    out = Buffer.concat([out, t])
  }
  return out.subarray(0, len)
}
const label = (secret, name, len) =>
  expand(
    secret,
    Buffer.concat([
      u(len, 2),
      Buffer.from([name.length + 5]),
      Buffer.from(`ovpn ${name}`),
      Buffer.from([0]),
    ]),
    len,
  )
const pHash = (alg, secret, seed, len) => {
  let out = Buffer.alloc(0),
    a = seed
  while (out.length < len) {
    a = hmac(alg, secret, a)
    out = Buffer.concat([out, hmac(alg, secret, a, seed)])
  }
  return out.subarray(0, len)
}
const prf = (secret, seed, len) => {
  const half = (secret.length + 1) >> 1
  const m = pHash('md5', secret.subarray(0, half), seed, len)
  const s = pHash('sha1', secret.subarray(secret.length - half), seed, len)
  return Buffer.from(m.map((b, i) => b ^ s[i]))
}
const aeadName = (c) => (c === 'CHACHA20-POLY1305' ? 'chacha20-poly1305' : c.toLowerCase())
const seal = (c, key, nonce, aad, pt) => {
  const e = crypto.createCipheriv(aeadName(c), key, nonce, { authTagLength: 16 })
  e.setAAD(aad)
  const ct = Buffer.concat([e.update(pt), e.final()])
  return [ct, e.getAuthTag()]
}
const keyLen = { 'AES-128-GCM': 16, 'AES-192-GCM': 24, 'AES-256-GCM': 32, 'CHACHA20-POLY1305': 32 }
const xor = (a, b) => Buffer.from(a.map((v, i) => v ^ b[i]))

for (const c of load('hkdf.json').hkdf_expand_sha256)
  eq(c.name, expand(X(c.prk), X(c.info), c.length), c.okm)
for (const c of load('hkdf.json').ovpn_expand_label)
  eq(c.name, label(X(c.secret), c.label_text, c.length), c.output)

const prfFile = load('prf.json')
for (const c of prfFile.tls1_prf) eq(c.name, prf(X(c.secret), X(c.seed), c.length), c.output)
for (const c of prfFile.key_method_2_derivation) {
  const master = prf(
    X(c.client_pre_master),
    Buffer.concat([Buffer.from('OpenVPN master secret'), X(c.client_random1), X(c.server_random1)]),
    48,
  )
  eq(c.name, master, c.master_secret)
  eq(
    c.name,
    prf(
      master,
      Buffer.concat([
        Buffer.from('OpenVPN key expansion'),
        X(c.client_random2),
        X(c.server_random2),
        X(c.client_session_id),
        X(c.server_session_id),
      ]),
      256,
    ),
    c.key2,
  )
}

for (const c of load('tls-ekm.json').cases)
  for (const e of Object.values(c.exports)) {
    const alg = c.exporter_hash_text
    let out
    if (c.tls_version_text === 'TLSv1.2')
      out = pHash(
        alg,
        X(c.master_secret),
        Buffer.concat([Buffer.from(e.label_text), X(c.client_random), X(c.server_random)]),
        e.length,
      )
    else {
      const hl = crypto.createHash(alg).digest().length,
        empty = crypto.createHash(alg).digest()
      const tls13 = (secret, name, ctx, len) => {
        const l = Buffer.from(`tls13 ${name}`),
          info = Buffer.concat([
            u(len, 2),
            Buffer.from([l.length]),
            l,
            Buffer.from([ctx.length]),
            ctx,
          ])
        let o = Buffer.alloc(0),
          t = Buffer.alloc(0)
        for (let i = 1; o.length < len; i++) {
          t = hmac(alg, secret, t, info, Buffer.from([i]))
          o = Buffer.concat([o, t])
        }
        return o.subarray(0, len)
      }
      out = tls13(
        tls13(X(c.exporter_master_secret), e.label_text, empty, hl),
        'exporter',
        empty,
        e.length,
      )
    }
    eq(`${c.name} ${e.label_text}`, out, e.output)
  }

for (const c of load('data-aead-classic.json').cases) {
  const k = X(c.key2),
    i = c.direction === 'c2s' ? 0 : 128,
    hdr = X(c.header),
    pid = u(c.packet_id, 4)
  const nonce = Buffer.concat([pid, k.subarray(i + 64, i + 72)])
  const aad = hdr.length === 4 ? Buffer.concat([hdr, pid]) : pid
  const [ct, tag] = seal(c.cipher, k.subarray(i, i + keyLen[c.cipher]), nonce, aad, X(c.plaintext))
  eq(c.name, Buffer.concat([hdr, pid, tag, ct]), c.packet)
}
for (const c of load('epoch-keys.json').cases)
  for (const e of c.epochs) {
    if (c.e1) {
      let s = X(c.e1)
      for (let i = 1; i < e.epoch; i++) s = label(s, 'datakey upd', 32)
      eq(c.name, s, e.secret)
    }
    eq(c.name, label(X(e.secret), 'data_key', keyLen[c.cipher]), e.key)
    eq(c.name, label(X(e.secret), 'data_iv', 12), e.iv)
  }
for (const c of load('data-aead-epoch.json').cases) {
  let s = X(c.e1)
  for (let i = 1; i < c.epoch; i++) s = label(s, 'datakey upd', 32)
  const pid = Buffer.concat([u(c.epoch, 2), u(c.counter, 6)]),
    hdr = X(c.header)
  const nonce = xor(label(s, 'data_iv', 12), Buffer.concat([pid, Buffer.alloc(4)]))
  const [ct, tag] = seal(
    c.cipher,
    label(s, 'data_key', keyLen[c.cipher]),
    nonce,
    Buffer.concat([hdr, pid]),
    X(c.plaintext),
  )
  eq(c.name, Buffer.concat([hdr, pid, ct, tag]), c.packet)
}
for (const c of load('data-cbc.json').cases) {
  const k = X(c.key2),
    kl = c.cipher === 'AES-128-CBC' ? 16 : 32,
    alg = c.auth.toLowerCase()
  const e = crypto.createCipheriv(c.cipher.toLowerCase(), k.subarray(0, kl), X(c.iv))
  const ct = Buffer.concat([e.update(u(c.packet_id, 4)), e.update(X(c.plaintext)), e.final()])
  const mac = hmac(alg, k.subarray(64, 64 + crypto.createHash(alg).digest().length), X(c.iv), ct)
  eq(c.cipher, Buffer.concat([X(c.header), mac, X(c.iv), ct]), c.packet)
}
for (const c of load('tls-auth.json').cases) {
  const alg = c.digest.toLowerCase(),
    len = crypto.createHash(alg).digest().length,
    k = X(c.static_key),
    p = X(c.packet)
  const hk = k.subarray(c.key_index * 128 + 64, c.key_index * 128 + 64 + len)
  eq(
    c.name,
    hmac(alg, hk, p.subarray(9 + len, 17 + len), p.subarray(0, 9), p.subarray(17 + len)),
    p.subarray(9, 9 + len).toString('hex'),
  )
}
for (const c of load('tls-crypt.json').cases) {
  const k = X(c.key2),
    i = c.key_index * 128,
    hdr = X(c.header),
    ad = Buffer.concat([hdr, u(c.replay_id, 4), u(c.replay_time, 4)])
  const tag = hmac('sha256', k.subarray(i + 64, i + 96), ad, X(c.body))
  const ct = crypto
    .createCipheriv('aes-256-ctr', k.subarray(i, i + 32), tag.subarray(0, 16))
    .update(X(c.body))
  eq(c.name, Buffer.concat([ad, tag, ct]), c.packet)
}
for (const c of load('tls-crypt-v2.json').wkc) {
  const sk = X(c.server_key),
    body = Buffer.concat([X(c.client_key), X(c.metadata)]),
    len = u(body.length + 34, 2)
  const tag = hmac('sha256', sk.subarray(64, 96), len, body)
  const ct = crypto
    .createCipheriv('aes-256-ctr', sk.subarray(0, 32), tag.subarray(0, 16))
    .update(body)
  eq(c.name, Buffer.concat([tag, ct, len]), c.wkc)
}
for (const c of load('dynamic-tls-crypt.json').cases) {
  eq(c.name, c.original_key ? xor(X(c.ekm), X(c.original_key)) : X(c.ekm), c.key2)
}
for (const c of load('auth-token.json').cases) {
  const times = Buffer.concat([u(0, 2), u(c.initial_time, 6), u(0, 2), u(c.time, 6)])
  const mac = hmac('sha256', X(c.hmac_key), Buffer.from(c.username_text), X(c.session_id), times)
  eq(
    c.name,
    `SESS_ID_AT_${Buffer.concat([X(c.session_id), times, mac]).toString('base64')}`,
    c.token_text,
  )
}
let data = 0
for (const s of load('live-sessions.json').sessions) {
  const k = X(s.key2)
  if (s.derivation === 'prf') {
    const c = X(s.key_method_2_client),
      v = X(s.key_method_2_server)
    const master = prf(
      c.subarray(5, 53),
      Buffer.concat([Buffer.from('OpenVPN master secret'), c.subarray(53, 85), v.subarray(5, 37)]),
      48,
    )
    eq(
      s.name,
      prf(
        master,
        Buffer.concat([
          Buffer.from('OpenVPN key expansion'),
          c.subarray(85, 117),
          v.subarray(37, 69),
          X(s.client_session_id),
          X(s.server_session_id),
        ]),
        256,
      ),
      s.key2,
    )
  }
  for (const p of s.packets) {
    if (p.type !== 'data' || !p.plaintext) continue
    const b = X(p.packet),
      i = p.dir === 'c2s' ? 0 : 128,
      h = b[0] >> 3 === 9 ? 4 : 1
    if (s.data_format === 'epoch') {
      let e = k.subarray(i, i + 32)
      for (let x = 1; x < b.readUInt16BE(h); x++) e = label(e, 'datakey upd', 32)
      const nonce = xor(
        label(e, 'data_iv', 12),
        Buffer.concat([b.subarray(h, h + 8), Buffer.alloc(4)]),
      )
      const [ct, tag] = seal(
        s.cipher,
        label(e, 'data_key', keyLen[s.cipher]),
        nonce,
        b.subarray(0, h + 8),
        X(p.plaintext),
      )
      eq(s.name, Buffer.concat([b.subarray(0, h + 8), ct, tag]), p.packet)
    } else {
      const pid = b.subarray(h, h + 4)
      const [ct, tag] = seal(
        s.cipher,
        k.subarray(i, i + keyLen[s.cipher]),
        Buffer.concat([pid, k.subarray(i + 64, i + 72)]),
        h === 4 ? b.subarray(0, 8) : pid,
        X(p.plaintext),
      )
      eq(s.name, Buffer.concat([b.subarray(0, h), pid, tag, ct]), p.packet)
    }
    data++
  }
}
console.log(`${n} values agree (${data} of them recorded data packets)`)
