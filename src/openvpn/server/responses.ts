/** A client's answers to what it is asked in the middle of authentication, as they come. */

/** More than anybody types. */
const LIMIT = 16

export class Responses implements AsyncIterable<string> {
  readonly #queue: string[] = []
  #wake: (() => void) | undefined
  #ended = false

  put(text: string): void {
    if (this.#ended || this.#queue.length >= LIMIT) return
    this.#queue.push(text)
    this.#wake?.()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncIterator<string> {
    for (;;) {
      const text = this.#queue.shift()
      if (text !== undefined) yield text
      else if (this.#ended) return
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }
}
