import { Desk } from "../desk";

/** Rendered once, by the build: where the relay is, is what NEXT_PUBLIC_WS_URL was then. */
export default function Page() {
  return <Desk />;
}
