/** Takes measurements that cost time to make. A hub without a meter makes none. */
export interface Meter {
  /** A room has written this turn's frames to its members. */
  fannedOut (milliseconds: number): void
  /** A message was published to a topic under this key. */
  published (topicKey: string): void
}
