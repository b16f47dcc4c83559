/** The presence of a session in the eyes of the fleet. Times are on the clock of `Date`. */
export interface Piece {
  /** It may be there from the first time to the second one. */
  readonly possible: readonly [number, number]
  /** It is there from the first time to the second one; `undefined` if it may never be seen. */
  readonly certain: readonly [number, number] | undefined
}

/** How often something may happen: least and most. */
export interface Bounds { readonly least: number, readonly most: number }

export interface ExpectedEvents { readonly joins: Bounds, readonly leaves: Bounds }

type Interval = readonly [from: number, to: number]

/** Joins intervals that touch. */
function union (intervals: readonly Interval[]): Interval[] {
  const joined: [number, number][] = []
  for (const [from, to] of [...intervals].sort((a, b) => a[0] - b[0])) {
    const last = joined.at(-1)
    if (last !== undefined && from <= last[1]) last[1] = Math.max(last[1], to)
    else joined.push([from, to])
  }
  return joined
}

/**
 * How often a user joins and leaves a topic from `begin` to `end`, over all its sessions: the first one joins, the last one leaves. A session that follows another one
 * in time is neither.
 */
export function expectedEvents (pieces: readonly Piece[], begin: number, end: number): ExpectedEvents {
  const certain = union(pieces.flatMap(({ certain }) => certain === undefined ? [] : [certain]))
  const holds = ([from, to]: Interval): boolean => certain.some(piece => piece[0] >= from && piece[1] <= to)
  const possible = union(pieces.map(({ possible }) => possible)).filter(holds)
  const unsure = pieces.filter(piece => piece.certain === undefined && !certain.some(([from, to]) => from <= piece.possible[0] && to >= piece.possible[1])).length
  const begins = (intervals: readonly Interval[]): number => intervals.filter(([from]) => from > begin).length
  const ends = (intervals: readonly Interval[]): number => intervals.filter(([, to]) => to < end).length
  return {
    joins: { least: begins(possible), most: begins(certain) + unsure },
    leaves: { least: ends(possible), most: ends(certain) + unsure }
  }
}
