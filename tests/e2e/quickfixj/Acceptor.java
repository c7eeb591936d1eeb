import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.InputStreamReader;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;

import quickfix.ApplicationAdapter;
import quickfix.DefaultMessageFactory;
import quickfix.MemoryStoreFactory;
import quickfix.Message;
import quickfix.RejectLogon;
import quickfix.Session;
import quickfix.SessionID;
import quickfix.SLF4JLogFactory;
import quickfix.SessionSettings;
import quickfix.SocketAcceptor;

/**
 * FIX acceptor for tests: standard input has its settings, up to a line "end", and then commands.
 *
 * Commands, each answered by one line, where ID is the comp id of the other side:
 *   preset ID SENDER TARGET   sets the next sequence numbers
 *   numbers ID                "SENDER TARGET"
 *   logon ID                  the last logon, with | between its fields
 */
public final class Acceptor extends ApplicationAdapter {
    private static final int RAW_USERNAME = 553;
    private static final int RAW_PASSWORD = 554;

    private final Map<String, String> logons = new ConcurrentHashMap<>();

    @Override
    public void fromAdmin(Message message, SessionID session) throws RejectLogon {
        try {
            if (!message.getHeader().getString(35).equals("A")) {
                return;
            }
            logons.put(session.getTargetCompID(), message.toString().replace('\u0001', '|'));
            if (session.getTargetCompID().startsWith("USER")) {
                boolean known = message.isSetField(RAW_USERNAME) && message.getString(RAW_USERNAME).equals("probe");
                if (!known || !message.getString(RAW_PASSWORD).equals("s3cret word")) {
                    throw new RejectLogon("bad credentials: " + message.getString(RAW_PASSWORD));
                }
            }
        } catch (quickfix.FieldNotFound error) {
            throw new RejectLogon("missing field " + error.field);
        }
    }

    private static Session find(SocketAcceptor acceptor, String target) {
        for (SessionID id : acceptor.getSessions()) {
            if (id.getTargetCompID().equals(target)) {
                return Session.lookupSession(id);
            }
        }
        throw new IllegalArgumentException(target);
    }

    private String answer(SocketAcceptor acceptor, String[] words) throws Exception {
        Session session = find(acceptor, words[1]);
        switch (words[0]) {
            case "preset":
                session.setNextSenderMsgSeqNum(Integer.parseInt(words[2]));
                session.setNextTargetMsgSeqNum(Integer.parseInt(words[3]));
                return "done";
            case "numbers":
                return session.getExpectedSenderNum() + " " + session.getExpectedTargetNum();
            case "logon":
                return logons.getOrDefault(words[1], "");
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        StringBuilder text = new StringBuilder();
        for (String line = input.readLine(); !line.equals("end"); line = input.readLine()) {
            text.append(line).append('\n');
        }
        Acceptor application = new Acceptor();
        SessionSettings settings = new SessionSettings(new ByteArrayInputStream(text.toString().getBytes("UTF-8")));
        // Without a binding, SLF4J discards the log.
        SocketAcceptor acceptor = new SocketAcceptor(
            application, new MemoryStoreFactory(), settings, new SLF4JLogFactory(settings),
            new DefaultMessageFactory());
        acceptor.start();
        System.out.println("ready");
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            System.out.println(application.answer(acceptor, line.split(" ")));
        }
        acceptor.stop(true);
    }
}
