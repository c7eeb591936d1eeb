import { Desk } from "../desk";

/** Render at build time, with the relay's URL from NEXT_PUBLIC_WS_URL. */
export default function Page() {
  return <Desk />;
}
