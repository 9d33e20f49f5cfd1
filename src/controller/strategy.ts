/** How the jobs go through a cycle. */

/** live: they run on over tcp meanwhile; park: their ranks are held meanwhile. */
export const strategies = ["live", "park"] as const;
export type Strategy = (typeof strategies)[number];

/** What is done when neither the command line nor the cluster file says. */
export const DEFAULT_STRATEGY: Strategy = "live";
