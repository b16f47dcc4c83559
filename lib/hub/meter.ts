/** Measures what costs something to measure. Where a hub has none, nothing is measured. */
export interface Meter {
  /** A room has written to its members what it had for them in this turn. */
  fannedOut (milliseconds: number): void
  /** Something was published to a topic under this key. */
  published (topicKey: string): void
}
