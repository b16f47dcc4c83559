/** Whether a position is at another one of the same epoch, or before it. `""` stands for no position. */
export const isUpTo = (id: string, other: string): boolean => {
  const [epoch, offset] = id.split('-')
  const [otherEpoch, otherOffset] = other.split('-')
  return epoch === otherEpoch && +offset! <= +otherOffset!
}
