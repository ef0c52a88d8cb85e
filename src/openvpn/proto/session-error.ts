/** Owns why a session ends before its owner ends it. */

export type SessionErrorCode =
  /** Nothing that could be understood came from the other end. */
  | 'no-answer'
  /** A key exchange began, and was not complete when its time was over. */
  | 'timeout'
  /** TLS failed: the error's `cause` says how. */
  | 'tls'
  /** The other end's certificate is not accepted. */
  | 'certificate'
  /** At a rekey the other end was somebody else. */
  | 'identity'
  /** What came through TLS makes no sense. */
  | 'malformed'
  /** The other end sent, or would not take, more than is kept for it. */
  | 'flood'
  /** Our own key message cannot be sent. */
  | 'hello'

export class SessionError extends Error {
  readonly code: SessionErrorCode

  constructor(code: SessionErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'SessionError'
    this.code = code
  }
}
